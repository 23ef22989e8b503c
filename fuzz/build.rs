//! Compiles what the target `c_abi` calls the C ABI with: a C program, against the header as it is.

fn main() {
    println!("cargo:rerun-if-changed=c_abi/calls.c");
    println!("cargo:rerun-if-changed=../include/segue.h");
    cc::Build::new()
        .file("c_abi/calls.c")
        .include("../include")
        .std("c11")
        .flag("-Wall")
        .flag("-Wextra")
        .warnings_into_errors(true)
        .compile("calls");
}
