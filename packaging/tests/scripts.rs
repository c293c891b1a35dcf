//! What an operator sees of `scripts/` before anything is installed or built.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// All that help may need: no package manager, no compiler.
const TOOLS: [&str; 4] = ["bash", "dirname", "env", "sed"];

#[test]
fn every_script_tells_its_help_at_once() {
    let tools = tempfile::tempdir().unwrap();
    for tool in TOOLS {
        symlink(format!("/usr/bin/{tool}"), tools.path().join(tool)).unwrap();
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let mut seen = 0;
    for entry in fs::read_dir(scripts).unwrap() {
        let path = entry.unwrap().path();
        if path.metadata().unwrap().permissions().mode() & 0o111 == 0 {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        for flag in ["--help", "-h"] {
            let output = Command::new(&path)
                .arg(flag)
                .env_clear()
                .env("PATH", tools.path())
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout.clone()).unwrap();
            assert!(output.status.success(), "{name}: {output:?}");
            assert!(text.contains(&format!("scripts/{name}")), "{name}: {text}");
            assert!(text.lines().all(|line| !line.starts_with('#')), "{name}: {text}");
            assert!(output.stderr.is_empty(), "{name}: {:?}", String::from_utf8(output.stderr));
        }
        seen += 1;
    }
    assert!(seen >= 7, "{seen} scripts");
}
