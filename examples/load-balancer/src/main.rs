//! `flowgate-lb`.
fn main() {
    print!("{}", flowgate_lb::config::reference());
}
