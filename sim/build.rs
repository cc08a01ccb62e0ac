//! Stops a build without the flag, before the compiler does it with errors that don't say why.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_CFG_MADSIM").is_none() {
        println!(
            "cargo::error=the simulator needs `--cfg madsim`: build it in the workspace's directory, where \
             .cargo/config.toml sets it, and without RUSTFLAGS in the environment (or with RUSTFLAGS=\"--cfg madsim\")"
        );
    }
}
