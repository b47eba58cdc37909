//! The pages, read once: what is not among them does not exist.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;

/// Where packages install them; in a checkout what `make web` put together, else the sources, without WebAssembly.
const PLACES: [&str; 3] = ["../../share/lcroute/web", "../web", "../../web/pages"];
/// The sources, where cargo's target folder is elsewhere.
const SOURCES: Option<&str> = if cfg!(debug_assertions) {
    Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../pages"))
} else {
    None
};
/// Depth of folders below.
const MAX_DEPTH: usize = 4;
/// Files that are none of pages are left where they are.
const TYPES: [(&str, &str); 5] = [
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("wasm", "application/wasm"),
];

/// A file of the pages.
#[derive(Debug, Clone)]
pub struct File {
    pub kind: &'static str,
    pub content: Bytes,
}

/// All files, by path from the root of the pages, such as `/style.css`.
#[derive(Debug)]
pub struct Files(BTreeMap<String, File>);

impl Files {
    /// Those of the folder beside this program.
    pub fn find() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let folder = program.parent().unwrap_or(Path::new("/"));
        let places = PLACES.into_iter().chain(SOURCES);
        let places: Vec<PathBuf> = places.map(|place| folder.join(place)).collect();
        let found = places
            .iter()
            .find(|place| place.join("dashboard/index.html").is_file());
        let found = found.with_context(|| {
            let looked: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
            format!(
                "the pages are not there (looked for {})",
                looked.join(" and ")
            )
        })?;
        Self::read(found).with_context(|| found.display().to_string())
    }

    fn read(folder: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        read_into(&mut files, folder, "", MAX_DEPTH)?;
        Ok(Self(files))
    }

    /// What a path leads to: a file, or the page of a folder; the dashboard is at the root.
    pub fn get(&self, path: &str) -> Option<&File> {
        match path {
            "/" => self.0.get("/dashboard/index.html"),
            folder if folder.ends_with('/') => self.0.get(&format!("{folder}index.html")),
            file => self.0.get(file),
        }
    }
}

fn read_into(
    files: &mut BTreeMap<String, File>,
    folder: &Path,
    path: &str,
    depth: usize,
) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (name, from) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let path = format!("{path}/{name}");
        if from.is_dir() && depth > 0 {
            read_into(files, &from, &path, depth - 1)?;
        }
        let extension = from.extension().and_then(|e| e.to_str());
        let kind = TYPES.iter().find(|(known, _)| Some(*known) == extension);
        if let Some((_, kind)) = kind.filter(|_| from.is_file()) {
            let content = std::fs::read(&from)?.into();
            files.insert(path, File { kind, content });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_has_its_pages_wherever_the_program_is() {
        assert!(Files::find().unwrap().get("/").is_some());
    }

    #[test]
    fn only_pages_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let dashboard = folder.path().join("dashboard");
        std::fs::create_dir(&dashboard).unwrap();
        for name in ["index.html", "a.js", "notes.txt", ".hidden.html"] {
            std::fs::write(dashboard.join(name), name).unwrap();
        }
        let files = Files::read(folder.path()).unwrap();
        for folder in ["/", "/dashboard/"] {
            assert_eq!(files.get(folder).unwrap().content, "index.html");
        }
        assert_eq!(
            files.get("/dashboard/a.js").unwrap().kind,
            "text/javascript; charset=utf-8"
        );
        for path in [
            "",
            "/dashboard",
            "/notes/",
            "/dashboard/notes.txt",
            "/dashboard/.hidden.html",
            "/../a.js",
            "//dashboard/a.js",
        ] {
            assert!(files.get(path).is_none(), "{path}");
        }
    }
}
