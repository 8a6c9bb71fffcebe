//! The migrations and the console are embedded: what changes in them must rebuild the crate.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=migrations-stats");
    println!("cargo:rerun-if-changed=../web-ui/dist");
}
