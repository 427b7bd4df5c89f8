//! Entities by name: flowgate's own policies and Cilium's call them the same.

use flowgate_policy::model::Entity;

use crate::field::{Field, Read};

/// What the entities are called.
pub(crate) const NAMES: [&str; 8] =
    ["all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "remote-node", "none"];

/// The entities, in the order of their names.
const ENTITIES: [Entity; 8] = [
    Entity::All,
    Entity::World,
    Entity::WorldIpv4,
    Entity::WorldIpv6,
    Entity::Cluster,
    Entity::Host,
    Entity::RemoteNode,
    Entity::None,
];

pub(crate) fn entity(field: &Field<'_>) -> Read<Entity> {
    Ok(ENTITIES[field.choice(&NAMES)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entities_are_called_what_they_are() {
        assert_eq!(ENTITIES.map(|entity| entity.to_string()), NAMES);
    }
}
