//! Compiles the kernel programs, so that they travel inside the daemon.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("cargo::error={error}"));
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let ebpf = here.parent().ok_or("the package has no parent directory")?;
    let probes = ebpf.join("probes");
    for watched in [
        "probes/src",
        "probes/Cargo.toml",
        "probes/Cargo.lock",
        "abi/src",
    ] {
        say(&format!(
            "cargo::rerun-if-changed={}",
            ebpf.join(watched).display()
        ));
    }
    for variable in ["PATH", "XDG_CACHE_HOME", "HOME"] {
        say(&format!("cargo::rerun-if-env-changed={variable}"));
    }
    let toolchain = exeat_ebpf_toolchain::locate()?;
    say(&format!(
        "cargo::rerun-if-changed={}",
        toolchain.linker.display()
    ));
    let target = out.join("probes");
    let output = toolchain.build(&probes, &target).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        for line in text.lines() {
            say(&format!("cargo::warning={line}"));
        }
        return Err("the kernel programs do not compile; the compiler's messages are above".into());
    }
    let object = target
        .join(exeat_ebpf_toolchain::TARGET)
        .join("release/exeat");
    fs::copy(object, out.join("exeat.o"))?;
    Ok(())
}

fn say(line: &str) {
    println!("{line}");
}
