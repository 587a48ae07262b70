//! The SQL folders and the bundled plugins are embedded in the binary: a new or changed file must rebuild it.

fn main() {
    for folder in ["refinery_migrations", "sql", "triggers", "plugins"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
