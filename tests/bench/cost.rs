//! What one frame costs.

fn main() {
    divan::main();
}
