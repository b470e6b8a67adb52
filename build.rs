//! The build context of the runner image and the migrations are embedded in the program; a changed or new file there means a
//! new program.

fn main() {
    println!("cargo:rerun-if-changed=images/runner");
    println!("cargo:rerun-if-changed=migrations");
}
