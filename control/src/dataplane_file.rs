//! What control's own tools read in the data plane's file: the networks of its ports and its routes. The
//! file's rules are the data plane's to judge; here a field that is wrong counts as absent.

use std::path::Path;

use sluice_api::Problem;
use toml::{Table, Value};

use crate::model::reach::{Network, Reach, network};

/// Where the package puts it.
pub const DATAPLANE_FILE: &str = "/etc/sluice/dataplane.toml";

/// What the ports of a file lead to.
///
/// # Errors
/// It cannot be read, or is not TOML.
pub fn reach(file: &Path) -> Result<Reach, Problem> {
    let wrong = |why: String| Problem::new("--dataplane-file", file.display(), why);
    let text = std::fs::read_to_string(file)
        .map_err(|error| wrong(format!("a file that can be read ({error})")))?;
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| wrong(format!("TOML ({})", error.message())))?;
    Ok(reach_in(&table))
}

/// What the ports of a file lead to, as far as it can be told.
pub fn reach_in(file: &Table) -> Reach {
    let tables = |key: &str| file.get(key).and_then(Value::as_array).into_iter().flatten();
    let networks = |value: &Value| value.as_str().and_then(network);
    let of_port = |port: &Value| -> Vec<Network> {
        let addresses = port.get("addresses").and_then(Value::as_array);
        addresses.into_iter().flatten().filter_map(networks).collect()
    };
    Reach {
        networks: tables("port").flat_map(of_port).collect(),
        routes: tables("route").filter_map(|r| r.get("destination").and_then(networks)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_routes_are_read_and_what_is_wrong_counts_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dataplane.toml");
        let error = reach(&file).unwrap_err().to_string();
        assert!(error.contains("dataplane.toml: expected a file that can be read"), "{error}");
        std::fs::write(&file, "[[port]\n").unwrap();
        assert!(reach(&file).unwrap_err().to_string().contains("expected TOML ("));
        let text = "[[port]]\naddresses = [\"10.0.0.1/24\", \"10.0.1.1\", \"10.0.2.1/33\", 4]\n\
                    [[port]]\naddresses = [\"10.1.0.1/16\"]\n\
                    [[route]]\ndestination = \"0.0.0.0/0\"\nvia = \"10.0.0.254\"\n[[route]]\n";
        std::fs::write(&file, text).unwrap();
        let read = |list: &[&str]| list.iter().map(|text| network(text).unwrap()).collect();
        let expected =
            Reach { networks: read(&["10.0.0.1/24", "10.1.0.1/16"]), routes: read(&["0.0.0.0/0"]) };
        assert_eq!(reach(&file).unwrap(), expected);
        assert_eq!(reach_in(&Table::new()), Reach::default());
    }
}
