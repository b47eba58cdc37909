//! The bill of materials of a program: CycloneDX 1.6.

use anyhow::Context;
use serde_json::{Value, json};

use crate::crates::{Crate, Crates};

/// What a program is linked from, with checksums and who needs whom.
pub fn bill(program: &str, crates: &Crates, linked: &[(&str, &Crate)]) -> anyhow::Result<String> {
    let own = linked
        .iter()
        .find(|(_, c)| c.name == program && c.checksum.is_none());
    let (_, own) = own.context("a program is linked into itself")?;
    let components: Vec<Value> = linked
        .iter()
        .filter(|(_, c)| !std::ptr::eq(*c, *own))
        .map(|(_, c)| component(c, "library"))
        .collect();
    let dependencies: Vec<Value> = linked
        .iter()
        .map(|(id, c)| {
            let mut on: Vec<String> = crates
                .linked(id)
                .filter_map(|id| crates.get(id))
                .map(reference)
                .collect();
            on.sort();
            json!({ "ref": reference(c), "dependsOn": on })
        })
        .collect();
    let mut metadata = json!({ "component": component(own, "application") });
    if let Ok(seconds) = std::env::var("SOURCE_DATE_EPOCH") {
        let seconds = seconds.parse().context("SOURCE_DATE_EPOCH")?;
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        metadata["timestamp"] = humantime::format_rfc3339_seconds(time).to_string().into();
    }
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": dependencies,
    });
    Ok(format!("{bill:#}\n"))
}

/// The package URL, which is unique in a bill.
fn reference(of: &Crate) -> String {
    format!("pkg:cargo/{}@{}", of.name, of.version)
}

fn component(of: &Crate, kind: &str) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": reference(of),
        "name": of.name,
        "version": of.version,
        "description": of.description.trim(),
        "licenses": [{ "expression": of.licence }],
        "purl": reference(of),
    });
    if let Some(checksum) = &of.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}
