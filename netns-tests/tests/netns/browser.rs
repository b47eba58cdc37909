//! The pages in Chromium and Firefox, each on a host of the lab. `netns-tests/browser/drive.mjs`
//! drives them; `netns-tests/setup web` fetches its dependencies; `make web` makes the pages. The
//! last screenshots are in TARGET/browser/shots.

mod call;
mod camera;
mod dashboard;
mod get;
mod groups;
mod leaves;
mod node;
mod notes;
mod pictures;
mod playground;
mod present;
mod radio;
mod screen;
mod send;
mod studio;

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::PROGRAM;
use crate::prelude::*;

/// Timeout for the driver, which gives up earlier with a reason.
const SILENCE: Duration = Duration::from_secs(150);

const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser/drive.mjs");

/// A browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chromium,
    Firefox,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Chromium => "chromium",
            Kind::Firefox => "firefox",
        })
    }
}

/// The user's colour scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    Light,
    Dark,
}

/// Runs a test for each browser in its own world; `NETNS_BROWSER` names a single one.
fn in_each_browser(name: &str, test: impl Fn(&Lab, Kind) -> Result<()>) {
    let only = std::env::var("NETNS_BROWSER").ok();
    let is_meant = |kind: &Kind| only.as_ref().is_none_or(|only| *only == kind.to_string());
    for kind in [Kind::Chromium, Kind::Firefox].into_iter().filter(is_meant) {
        world(&format!("{name}-{kind}"), |lab| test(lab, kind));
    }
}

/// Returns a built folder: of the pages, or of the driver's dependencies.
fn built(folder: &str) -> Result<PathBuf> {
    let target = Path::new(PROGRAM).ancestors().nth(2).context("target")?;
    let path = target.join(folder);
    ensure!(
        path.exists(),
        "{} is missing: netns-tests/setup web, make web",
        path.display()
    );
    Ok(path)
}

/// A running browser with its processes; ended when dropped.
struct Browser {
    title: String,
    driver: Child,
    talk: RefCell<(ChildStdin, Receiver<String>)>,
}

/// A tab.
struct Page<'a> {
    browser: &'a Browser,
    tab: &'a str,
}

impl Browser {
    /// Starts a browser on this host.
    fn start(host: &Host, kind: Kind, theme: Theme) -> Result<Browser> {
        Self::start_with(host, kind, theme, None, None)
    }

    /// Starts a browser with a camera, and a microphone that plays a WAV file (Firefox has a tone
    /// instead, and `-` is one in both); and the loudspeakers of a PulseAudio server.
    fn start_with(
        host: &Host,
        kind: Kind,
        theme: Theme,
        microphone: Option<&Path>,
        loudspeakers: Option<&str>,
    ) -> Result<Browser> {
        let title = format!("{kind}-{}", format!("{theme:?}").to_lowercase());
        let profile = host.path(&title);
        fs::create_dir_all(&profile)?;
        let log = host.path(&format!("logs/{title}.err"));
        // all processes of the browser end with its process namespace
        let apart = ["--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut command = host.command("unshare")?;
        let theme = format!("{theme:?}").to_lowercase();
        command
            .args(apart)
            .args(["node", DRIVER])
            .arg(built("browser")?)
            .arg(kind.to_string())
            .args([&profile, Path::new(&theme)])
            .args(microphone)
            .envs(loudspeakers.map(|server| ("PULSE_SERVER", server)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?);
        let mut driver = command.spawn()?;
        let stdin = driver.stdin.take().context("a pipe")?;
        let stdout = driver.stdout.take().context("a pipe")?;
        let (to, answers) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines();
            lines
                .map_while(Result::ok)
                .try_for_each(|line| to.send(line))
        });
        let talk = RefCell::new((stdin, answers));
        let browser = Browser {
            title: format!("{}-{title}", host.name()),
            driver,
            talk,
        };
        browser.answer().context("the browser does not start")?;
        Ok(browser)
    }

    fn ask(&self, what: &str, tab: &str, mut more: Value) -> Result<Value> {
        more["do"] = what.into();
        more["tab"] = tab.into();
        writeln!(self.talk.borrow_mut().0, "{more}")?;
        self.answer()
    }

    fn answer(&self) -> Result<Value> {
        let line = self.talk.borrow().1.recv_timeout(SILENCE);
        let line = line.with_context(|| format!("{} says nothing", self.title))?;
        let mut answer: Value = serde_json::from_str(&line)?;
        match answer["error"].as_str() {
            Some(error) => bail!("{}: {error}", self.title),
            None => Ok(answer["value"].take()),
        }
    }

    /// Opens a tab, new or known.
    fn open<'a>(&'a self, tab: &'a str, url: &str) -> Result<Page<'a>> {
        self.ask("open", tab, json!({ "url": url }))?;
        Ok(Page { browser: self, tab })
    }

    /// Opens a tab in whose pages this script precedes their own.
    fn open_prepared<'a>(&'a self, tab: &'a str, js: &str, url: &str) -> Result<Page<'a>> {
        self.ask("prepare", tab, json!({ "js": js }))?;
        self.open(tab, url)
    }

    /// Checks that no page had an error so far, and that all requests went to these origins. Pages
    /// try a server with TLS, too, if they know only its host: here TLS is refused.
    fn expect_clean(&self, from: &[&str]) -> Result<()> {
        let seen = self.ask("seen", "", json!({}))?;
        let server = from.iter().find_map(|url| url.strip_prefix("ws://"));
        let host = server.and_then(|server| server.rsplit_once(':'));
        let with_tls = host.map(|(host, _)| format!("wss://{host}/"));
        let is_with_tls = |text: &str| with_tls.as_deref().is_some_and(|url| text.contains(url));
        let errors = seen["errors"].as_array().context("errors")?;
        for error in errors.iter().map(Value::to_string) {
            let is_refused = error.contains("CONNECTION_REFUSED") || error.contains("can’t");
            ensure!(is_refused && is_with_tls(&error), "{error}");
        }
        let requests = seen["requests"].as_array().context("requests")?;
        ensure!(!requests.is_empty(), "no request was seen");
        for url in requests.iter().filter_map(Value::as_str) {
            let mut inside = ["data:", "blob:"].iter().chain(from);
            let is_known = inside.any(|known| url.starts_with(known)) || is_with_tls(url);
            ensure!(is_known, "{url}");
        }
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // an error would have no recipient
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Page<'_> {
    fn ask(&self, what: &str, more: Value) -> Result<Value> {
        self.browser.ask(what, self.tab, more)
    }

    /// Returns the value of an expression.
    fn eval(&self, js: &str) -> Result<Value> {
        self.ask("eval", json!({ "js": js }))
    }

    /// Waits until an expression is truthy; returns its value, and the time.
    fn until(&self, js: &str) -> Result<(Value, Duration)> {
        let ms = u64::try_from(DEADLINE.as_millis())?;
        let mut found = self.ask("until", json!({ "js": js, "ms": ms }))?;
        let took = Duration::from_secs_f64(found["took"].as_f64().context("took")? / 1_000.0);
        let value = found["value"].take();
        let is_true =
            !matches!(&value, Value::Null | Value::Bool(false)) && value != "" && value != 0;
        if !is_true {
            let shot = self.shot("failed").map(|path| path.display().to_string());
            bail!(
                "{}: waited until {js}; the page says: {} ({shot:?})",
                self.browser.title,
                self.eval("document.body.innerText.slice(0, 4000)")?
            );
        }
        Ok((value, took))
    }

    /// Waits until an element has this text.
    fn until_says(&self, at: &str, words: &str) -> Result<Duration> {
        let js = format!(
            "[...document.querySelectorAll({})].some((e) => e.textContent.includes({}))",
            json!(at),
            json!(words)
        );
        self.until(&js).map(|(_, took)| took)
    }

    /// Clicks with the mouse.
    fn click(&self, at: &str) -> Result<()> {
        self.ask("click", json!({ "at": at })).map(drop)
    }

    /// Replaces a field's text.
    fn fill(&self, at: &str, text: &str) -> Result<()> {
        self.eval(&format!("document.querySelector({}).value = ''", json!(at)))?;
        self.ask("type", json!({ "at": at, "text": text }))
            .map(drop)
    }

    /// Replaces a field's text, and presses Enter.
    fn enter(&self, at: &str, text: &str) -> Result<()> {
        self.fill(at, text)?;
        self.press("Enter")
    }

    /// Selects a file in a field.
    fn upload(&self, at: &str, file: &Path) -> Result<()> {
        self.ask("upload", json!({ "at": at, "file": file }))
            .map(drop)
    }

    /// Loads the page anew.
    fn reload(&self) -> Result<()> {
        self.ask("reload", json!({})).map(drop)
    }

    /// Presses a key.
    fn press(&self, key: &str) -> Result<()> {
        self.ask("press", json!({ "key": key })).map(drop)
    }

    /// Holds a key, or releases it.
    fn hold(&self, key: &str, is_down: bool) -> Result<()> {
        let what = if is_down { "down" } else { "up" };
        self.ask(what, json!({ "key": key })).map(drop)
    }

    /// Presses a key until the focus is on one of these.
    fn press_until(&self, key: &str, at: &str) -> Result<()> {
        for _ in 0..60 {
            self.press(key)?;
            if self.eval(&format!("document.activeElement.matches({})", json!(at)))? == true {
                return Ok(());
            }
        }
        bail!("{key} leads to no {at}");
    }

    /// Checks a phone's window: all nodes are on the map, and nothing scrolls sideways.
    fn expect_fits_a_phone(&self) -> Result<()> {
        self.ask("size", json!({ "width": 390, "height": 844 }))?;
        self.until("innerWidth === 390")?;
        self.until(
            "[...document.querySelectorAll('#map .node')].map((node) => node.getBoundingClientRect()).every(({ left, right }) => left >= 0 && right <= 390)",
        )?;
        let width = self.eval("document.documentElement.scrollWidth")?;
        self.shot("phone")?;
        ensure!(width.as_u64() <= Some(390), "{width} pixels wide");
        self.ask("size", json!({ "width": 1280, "height": 900 }))
            .map(drop)
    }

    /// Checks that axe-core finds no serious or critical barrier.
    fn expect_open_to_all(&self) -> Result<()> {
        let found = self.ask("hindrances", json!({}))?;
        let found = found.as_array().context("a list")?;
        holds!(found.is_empty(), "{}: {found:#?}", self.browser.title)
    }

    /// Checks the page for barriers, and takes a screenshot.
    fn inspect(&self, name: &str) -> Result<()> {
        self.expect_open_to_all()?;
        self.shot(name).map(drop)
    }

    /// Checks that nothing scrolls sideways at this width in pixels.
    fn expect_fits(&self, width: u32, height: u32) -> Result<()> {
        self.ask("size", json!({ "width": width, "height": height }))?;
        self.until(&format!("innerWidth === {width}"))?;
        let needed = self.eval("document.documentElement.scrollWidth")?;
        if needed.as_u64() > Some(width.into()) {
            let shot = self.shot("too-wide")?;
            bail!("{needed} pixels wide, not {width}: {}", shot.display());
        }
        Ok(())
    }

    /// Takes a screenshot of the whole page.
    fn shot(&self, name: &str) -> Result<PathBuf> {
        let folder = built("browser")?.join("shots");
        fs::create_dir_all(&folder)?;
        let test = std::thread::current()
            .name()
            .unwrap_or("test")
            .replace("::", "-");
        let path = folder.join(format!("{test}-{}-{name}.png", self.browser.title));
        self.ask("shot", json!({ "path": path }))?;
        Ok(path)
    }
}

/// Returns an expression: whether the table `at` has a row for which `row` is true.
fn some_row(at: &str, row: &str) -> String {
    format!(
        "[...document.querySelectorAll('{at} tbody tr')].some((tr) => {{ \
            const [first, second, third, ...rest] = [...tr.cells].map((cell) => cell.textContent); \
            return {row}; }})"
    )
}

/// Serves a folder by an ordinary web server; returns it and its URL.
fn serve_folder(host: &Host, folder: &Path, port: u16) -> Result<(Process, String)> {
    let (folder, port) = (folder.display().to_string(), port.to_string());
    let args = format!("-m http.server {port} --bind 127.0.0.1 --directory {folder}");
    let args = crate::words(&args);
    let server = host.spawn("python3", &args)?;
    exceeds(0, || Ok(open_sockets(server.pid())?.len()))?;
    Ok((server, format!("http://127.0.0.1:{port}/")))
}
