//! The bill of materials of a program: CycloneDX 1.6.

use anyhow::Context;
use serde_json::{Value, json};

use crate::crates::{Crate, Crates};
use crate::programs::Vendored;

/// Returns a program's components with checksums and dependencies, and foreign works.
pub fn bill(
    program: &str,
    crates: &Crates,
    linked: &[(&str, &Crate)],
    vendored: &[Vendored],
) -> anyhow::Result<String> {
    let own = linked
        .iter()
        .find(|(_, c)| c.name == program && c.checksum.is_none());
    let (_, own) = own.context("a program is linked into itself")?;
    let mut components: Vec<Value> = linked
        .iter()
        .filter(|(_, c)| !std::ptr::eq(*c, *own))
        .map(|(_, c)| component(c, "library"))
        .collect();
    let vendored: anyhow::Result<Vec<Value>> = vendored.iter().map(work).collect();
    components.extend(vendored?);
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

/// Returns the package URL, which is unique in a bill.
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

/// Describes a work of npm: the first line of its file is `/*! NAME VERSION` and a description.
fn work(of: &Vendored) -> anyhow::Result<Value> {
    let head = of.text.lines().next().and_then(|l| l.strip_prefix("/*! "));
    let mut words = head.unwrap_or_default().splitn(3, ' ');
    let (name, version) = words.next().zip(words.next()).context(of.file)?;
    let reference = format!("pkg:npm/{name}@{version}");
    Ok(json!({
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "description": words.next(),
        "licenses": [{ "expression": of.licence }],
        "purl": reference,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_in_the_source_tree_has_its_name_and_version() {
        let web = crate::programs::PROGRAMS
            .iter()
            .find(|p| p.name == "lcroute-web");
        let work = work(&web.unwrap().vendored[0]).unwrap();
        let purl = work["purl"].as_str().unwrap();
        assert!(purl.starts_with("pkg:npm/d3-force@3."), "{purl}");
    }
}
