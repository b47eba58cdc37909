//! The crates that a program is built from, by cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

/// A crate.
#[derive(Debug)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, an SPDX expression.
    pub licence: String,
    /// Its authors, by its manifest.
    pub authors: Vec<String>,
    /// Its description.
    pub description: String,
    /// The folder of its sources.
    pub folder: PathBuf,
    /// SHA-256 of the download; none for our own.
    pub checksum: Option<String>,
}

/// All crates of the workspace and below it.
#[derive(Debug)]
pub struct Crates {
    by_id: BTreeMap<String, Crate>,
    /// The linked crates of each crate.
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl Crates {
    /// Runs cargo, for the target in `CARGO_BUILD_TARGET` or this machine's kind.
    pub fn read() -> anyhow::Result<Self> {
        let target = std::env::var("CARGO_BUILD_TARGET")
            .unwrap_or_else(|_| format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(["--filter-platform", &target])
            .output()
            .context("cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let checksums = checksums(&metadata)?;
        let mut by_id = BTreeMap::new();
        for package in array(&metadata["packages"]) {
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            let folder = PathBuf::from(text(&package["manifest_path"]));
            let this = Crate {
                // old manifests have a slash for a choice
                licence: text(&package["license"]).replace('/', " OR "),
                authors: array(&package["authors"]).iter().map(text).collect(),
                description: text(&package["description"]),
                folder: folder.parent().map(PathBuf::from).unwrap_or_default(),
                checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
                name,
                version,
            };
            by_id.insert(text(&package["id"]), this);
        }
        let mut dependencies = BTreeMap::new();
        for node in array(&metadata["resolve"]["nodes"]) {
            let linked = array(&node["deps"]).iter().filter(|dependency| {
                // neither for tests nor for the build only
                let kinds = array(&dependency["dep_kinds"]);
                kinds.iter().any(|kind| kind["kind"].is_null())
            });
            let linked = linked.map(|dependency| text(&dependency["pkg"]));
            dependencies.insert(text(&node["id"]), linked.collect());
        }
        Ok(Self {
            by_id,
            dependencies,
        })
    }

    /// Returns all crates linked into a program, its own included, by name and version.
    pub fn linked_into(&self, program: &str) -> anyhow::Result<Vec<(&str, &Crate)>> {
        let root = self
            .by_id
            .iter()
            .find(|(_, c)| c.name == program && c.checksum.is_none());
        let (root, _) = root.with_context(|| format!("no crate {program}"))?;
        let mut found = BTreeSet::new();
        let mut open = vec![root.as_str()];
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(self.linked(id));
            }
        }
        let mut linked: Vec<(&str, &Crate)> = found
            .into_iter()
            .filter_map(|id| Some((id, self.by_id.get(id)?)))
            .collect();
        linked.sort_by(|(_, a), (_, b)| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(linked)
    }

    /// Returns the crates linked into a crate directly.
    pub fn linked(&self, id: &str) -> impl Iterator<Item = &str> {
        let linked = self.dependencies.get(id);
        linked.into_iter().flatten().map(String::as_str)
    }

    /// Returns the crate of an id.
    pub fn get(&self, id: &str) -> Option<&Crate> {
        self.by_id.get(id)
    }
}

/// Returns the checksums of the lock file by name and version.
fn checksums(metadata: &Value) -> anyhow::Result<BTreeMap<(String, String), String>> {
    let lock = PathBuf::from(text(&metadata["workspace_root"])).join("Cargo.lock");
    let lock: toml::Table = std::fs::read_to_string(&lock)?.parse()?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let rows = packages.into_iter().flatten().filter_map(|package| {
        let get = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
        Some(((get("name")?, get("version")?), get("checksum")?))
    });
    Ok(rows.collect())
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
