//! The table of methods in the README is the one in the code. `MAGIC_WRITE_README=1 cargo test --test readme` renews it.

use std::path::Path;

use magic_merge::methods::METHODS;

const BEGIN: &str = "<!-- methods: written by tests/readme.rs from src/methods/table.rs -->\n";
const END: &str = "<!-- /methods -->";

fn table() -> String {
    let mut table = String::from("\n| `--method` | | parameters (defaults) | from |\n|---|---|---|---|\n");
    for method in METHODS {
        let params: Vec<String> =
            method.params.iter().map(|(name, default)| format!("`{name}` ({})", default.replace('|', "\\|"))).collect();
        let formula = method.formula.replace('|', "\\|");
        table += &format!("| `{}` | {formula} | {} | {} |\n", method.name, params.join(", "), method.paper);
    }
    table + "\n"
}

#[test]
fn methods_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).expect("the README");
    let (before, rest) = readme.split_once(BEGIN).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where it ends");
    let renewed = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("MAGIC_WRITE_README").is_some() {
        std::fs::write(&path, &renewed).expect("a README that can be written");
    } else {
        assert!(readme == renewed, "renew the table: MAGIC_WRITE_README=1 cargo test --test readme");
    }
}
