//! A node of awe4lb.

fn main() -> std::process::ExitCode {
    awe4lb_data_plane::control::main()
}
