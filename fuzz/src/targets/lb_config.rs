//! Any text as a file of flowgate-lb: nothing panics, an error names file and, if it knows one, a line that the
//! text has, and what is understood can be desired, changed and saved.

use flowgate_lb::{
    config,
    desired::{Changes, Desired},
    health::Health,
};

/// Takes one input; whether it is worth keeping.
pub fn run(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    match config::parse("lb.yaml", text) {
        Ok(checked) => carry_on(checked),
        Err(error) => {
            assert!(error.to_string().starts_with("lb.yaml"), "{error}");
            let lines = text.split(['\n', '\r']).count();
            assert!(error.line().is_none_or(|line| (1..=lines).contains(&line)), "{error}");
        }
    }
    true
}

fn carry_on(checked: config::Checked) {
    let services = checked.services.clone();
    let desired = Desired::new(checked);
    assert_eq!(desired.services(|_| Health::Up), services);
    // Failing backends contradict nothing.
    let _ = desired.services(|_| Health::Down);
    let checks: usize = desired.plans().count();
    assert!(checks <= services.iter().map(|service| service.backends.len()).sum());
    let first =
        services.iter().find_map(|one| Some((one.name.clone(), one.backends.first()?.address)));
    if let Some((service, backend)) = first {
        let removed = desired.without_backend(service.as_str(), backend).expect("it is there");
        assert_eq!(desired.with_changes(removed.changes().clone()).expect("as before"), removed);
    }
    assert_eq!(desired.with_changes(Changes::default()).expect("none"), desired);
}
