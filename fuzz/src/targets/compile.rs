//! Any bytes as the choices of a case: an inventory, policies, options and flows. The compiler takes
//! it, and the plan, the oracle and the pipeline over the plan's tables say the same about each flow.

use flowgate_conformance::generate::Generator;
use flowgate_identity::LocalAllocator;
use flowgate_policy::{compile::Compiler, oracle, simulate::Simulator};

/// Flows that are asked about.
const FLOWS: usize = 40;

/// Takes one input.
pub fn run(bytes: &[u8]) {
    let mut generator = Generator::replay(crate::words(bytes));
    let case = generator.case();
    let options = generator.options(&case);
    let plan = Compiler::new(LocalAllocator::new())
        .compile(&case.inventory, &case.policies, &options)
        .expect("a generated case is sound");
    let simulator = Simulator::new(&plan).expect("a generated case is small");
    for _ in 0..FLOWS {
        let flow = generator.flow(&case);
        let expected = oracle::decide(&case.inventory, &case.policies, &options, &flow);
        assert_eq!(plan.decide(&flow), expected, "plan, {flow}\n{case:#?}");
        assert_eq!(simulator.simulate(&flow), Ok(expected), "pipeline, {flow}\n{case:#?}");
    }
}
