//! Generates the wire types with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=awe4lb");
    let descriptors = protox::compile(["awe4lb/v1/node.proto"], ["."])?;
    tonic_prost_build::configure()
        // Byte strings are shared, not copied: one encoded resource goes to every node.
        .bytes(".")
        // Secrets: their `Debug` is written by hand.
        .skip_debug([".awe4lb.v1.Key", ".awe4lb.v1.EnrolRequest", ".awe4lb.v1.TlsAlpn01"])
        .compile_fds(descriptors)?;
    Ok(())
}
