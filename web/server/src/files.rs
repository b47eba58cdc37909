//! The pages, read once at the start. A file `NAME.gz`, which `web/install` writes, is the packed
//! form of `NAME` for browsers that accept it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use hyper::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use librecast::id::derive;

/// Folders of the pages: installed, output of `make web`, or sources without WebAssembly.
const PLACES: [&str; 3] = ["../../share/lcroute/web", "../web", "../../web/pages"];
/// The sources, if cargo's target folder is elsewhere.
const SOURCES: Option<&str> = if cfg!(debug_assertions) {
    Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../pages"))
} else {
    None
};
/// Depth of subfolders.
const MAX_DEPTH: usize = 4;
/// Types of files that are served; other files are ignored.
const TYPES: [(&str, &str); 6] = [
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("wasm", "application/wasm"),
    ("webmanifest", "application/manifest+json"),
];

/// A file of the pages.
#[derive(Debug, Clone)]
pub struct File {
    pub kind: &'static str,
    pub plain: Content,
    pub packed: Option<Content>,
}

/// The bytes of a response, and their entity tag (RFC 9110 §8.8.3).
#[derive(Debug, Clone)]
pub struct Content {
    pub bytes: Bytes,
    pub tag: HeaderValue,
}

impl Content {
    fn read(path: &Path) -> io::Result<Self> {
        let bytes = Bytes::from(std::fs::read(path)?);
        let hash = derive("lcroute 2026 file of pages", &[&bytes]);
        let tag = format!("\"{}\"", bs58::encode(&hash[..16]).into_string());
        let tag = HeaderValue::try_from(tag).map_err(io::Error::other)?;
        Ok(Self { bytes, tag })
    }
}

impl File {
    /// The content for a request: packed if its browser accepts that.
    pub fn content(&self, headers: &HeaderMap) -> &Content {
        let accepted = headers.get_all(ACCEPT_ENCODING).iter();
        let accepted = accepted.filter_map(|value| value.to_str().ok());
        let takes = |coding: &str| match coding.split_once(';') {
            Some((name, weight)) => name.trim() == "gzip" && !is_zero(weight),
            None => coding.trim() == "gzip",
        };
        let is_taken = accepted.flat_map(|list| list.split(',')).any(takes);
        let packed = self.packed.as_ref().filter(|_| is_taken);
        packed.unwrap_or(&self.plain)
    }
}

/// Whether a weight is 0, which excludes the coding (RFC 9110 §12.4.2).
fn is_zero(weight: &str) -> bool {
    let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
    weight.parse() == Ok(0.0)
}

/// All files, by path from the root of the pages, such as `/style.css`.
#[derive(Debug)]
pub struct Files(BTreeMap<String, File>);

impl Files {
    /// Reads the folder beside this program.
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

    /// Writes these files into a folder, and reads it.
    #[cfg(test)]
    pub fn of_folder(folder: &Path, files: &[(&str, &[u8])]) -> Self {
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        Self::read(folder).unwrap()
    }

    /// The file of a path, or the page of a folder; the root is the dashboard.
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
            let mut packed = from.clone().into_os_string();
            packed.push(".gz");
            let packed = Path::new(&packed);
            let file = File {
                kind,
                plain: Content::read(&from)?,
                packed: packed
                    .is_file()
                    .then(|| Content::read(packed))
                    .transpose()?,
            };
            files.insert(path, file);
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
    fn browsers_that_take_it_get_a_file_packed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of_folder(folder.path(), &[("a.js", b"plain"), ("a.js.gz", b"packed")]);
        let file = files.get("/a.js").unwrap();
        let get = |accepts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in accepts {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            file.content(&headers).bytes.clone()
        };
        for accepts in [&["gzip, deflate, br"][..], &["br", "deflate,gzip;q=0.5"]] {
            assert_eq!(get(accepts), "packed", "{accepts:?}");
        }
        for accepts in [&[][..], &["identity"], &["gzip;q=0"], &["x-gzip2"]] {
            assert_eq!(get(accepts), "plain", "{accepts:?}");
        }
        let packed = file.packed.as_ref().unwrap();
        assert_ne!(packed.tag, file.plain.tag, "they are different bytes");
    }

    #[test]
    fn only_pages_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let dashboard = folder.path().join("dashboard");
        std::fs::create_dir(&dashboard).unwrap();
        for name in ["index.html", "a.js", "a.js.gz", "notes.txt", ".hidden.html"] {
            std::fs::write(dashboard.join(name), name).unwrap();
        }
        std::fs::write(folder.path().join("app.webmanifest"), "{}").unwrap();
        let files = Files::read(folder.path()).unwrap();
        let manifest = files.get("/app.webmanifest").unwrap();
        assert_eq!(manifest.kind, "application/manifest+json");
        for folder in ["/", "/dashboard/"] {
            let file = files.get(folder).unwrap();
            assert_eq!(file.plain.bytes, "index.html");
            assert!(file.packed.is_none());
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
            "/dashboard/a.js.gz",
            "/../a.js",
            "//dashboard/a.js",
        ] {
            assert!(files.get(path).is_none(), "{path}");
        }
    }
}
