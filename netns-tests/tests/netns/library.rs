//! Programs in Rust, C and Python by the library: a server for listeners, threads, tasks, bad input.

use librecast::channel::program_group;

use crate::prelude::*;

/// A path below the folder of the library.
fn source(path: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.join("../librecast").join(path)
}

/// Puts the shared library, which cargo makes beside the tests, into a folder of this host.
fn installed(host: &Host) -> Result<PathBuf> {
    let built = std::env::current_exe()?.with_file_name("liblibrecast_c.so");
    let folder = host.path("library");
    fs::create_dir_all(&folder)?;
    let installed = folder.join("liblibrecast_c.so.0");
    // a program that runs has it in its memory
    if !installed.exists() {
        fs::copy(&built, &installed).with_context(|| built.display().to_string())?;
    }
    Ok(installed)
}

/// Compiles an example in C; returns the program.
pub(crate) fn compile(host: &Host, example: &str) -> Result<String> {
    let library = installed(host)?;
    let folder = host.path("library").display().to_string();
    let program = host.path(example).display().to_string();
    let args = [
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
        &source("c/include").display().to_string(),
        "-o",
        &program,
        &source(&format!("examples/{example}.c"))
            .display()
            .to_string(),
        &library.display().to_string(),
        &format!("-Wl,-rpath,{folder}"),
    ];
    host.run("cc", &args)?.success()?;
    Ok(program)
}

/// Returns the words of `env` that run an example in Python, with the package of the source tree.
pub(crate) fn python(host: &Host, example: &str) -> Result<Vec<String>> {
    let package = format!("PYTHONPATH={}", source("python").display());
    let script = source(&format!("examples/{example}")).display().to_string();
    let [program, option] = ["python3", "-B"].map(str::to_owned);
    Ok(vec![library_of(host)?, package, program, option, script])
}

/// Returns the variable that names the shared library.
fn library_of(host: &Host) -> Result<String> {
    Ok(format!("LIBRECAST_LIBRARY={}", installed(host)?.display()))
}

/// Starts a program of [`compile`] or [`python`].
pub(crate) fn spawn(host: &Host, words: &[String]) -> Result<Process> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    host.spawn("env", &words)
}

/// Installs the package by pip into an empty environment; returns its Python.
fn install_by_pip(host: &Host) -> Result<String> {
    let environment = host.path("environment").display().to_string();
    host.call(&format!("python3 -m venv {environment}"))?;
    let python = format!("{environment}/bin/python");
    let package = source("python").display().to_string();
    // no index: the package needs no other
    let install = [
        python.as_str(),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--disable-pip-version-check",
        &package,
    ];
    host.run("env", &install)?.success()?;
    Ok(python)
}

#[test]
fn servers_in_three_languages_send_only_while_somebody_listens() {
    with_members("library-servers", ["alpha", "beta"], |_, [alpha, beta]| {
        let rust = vec![env!("CARGO_BIN_EXE_time-server").to_owned()];
        let c = vec![compile(&alpha.host, "time_server")?];
        let script = source("examples/time_server.py").display().to_string();
        let python = vec![
            library_of(&alpha.host)?,
            install_by_pip(&alpha.host)?,
            script,
        ];
        for program in [rust, c, python] {
            sends_only_while_somebody_listens(alpha, beta, &program)
                .with_context(|| format!("{program:?}"))?;
        }
        Ok(())
    });
}

fn sends_only_while_somebody_listens(
    alpha: &Member,
    beta: &Member,
    program: &[String],
) -> Result<()> {
    let group = program_group("example.org/time").context("a name")?;
    let group = group.to_string();
    let mut server = spawn(&alpha.host, program)?;
    eventually("it names its group", || {
        server.must_run()?;
        holds!(server.stderr().trim() == group, "{}", server.stderr())
    })?;
    is_silent(&mut server)?;
    ensure!(server.stdout().is_empty(), "{}", server.stdout());
    let mut listener = beta.host.spawn("lcroute", &["listen", &group])?;
    eventually("the time arrives", || {
        server.must_run()?;
        listener.must_run()?;
        holds!(!listener.stdout().is_empty(), "{}", listener.stderr())
    })?;
    listener.kill()?;
    is_silent(&mut server)
}

/// Waits until a server that sends once a second while it sends has sent nothing for a while.
fn is_silent(server: &mut Process) -> Result<()> {
    eventually("it sends nothing", || {
        server.must_run()?;
        let before = server.stdout();
        sleep(Duration::from_secs(3));
        holds!(server.stdout() == before, "{}", server.stdout())
    })
}

/// Threads and tasks with one channel, and mistakes of callers.
const CALLERS: &str = r#"
import asyncio, os, threading, time
import librecast

hears = librecast.Channel("example.org/callers", receive=True, watch=True)
speaks = librecast.Channel("example.org/callers", watch=True)
assert not hears.wait_for_listener(0), "its own membership is no listener"
assert speaks.wait_for_listener(), "another program's is"

# the caller may do with its descriptor as it likes
os.close(hears.descriptor())
speaks.send(b"one")
assert hears.receive().data == b"one"
for wrong, error in [(b"", ValueError), (b"x" * 70_000, librecast.TooLong)]:
    try:
        speaks.send(wrong)
    except error:
        continue
    raise SystemExit(f"{len(wrong)} bytes were sent")
try:
    speaks.receive(0)
    raise SystemExit("received without a membership")
except ValueError:
    pass
try:
    hears.receive(0.01)
    raise SystemExit("nothing was sent")
except TimeoutError:
    pass

async def tasks():
    got = asyncio.create_task(hears.areceive())
    await asyncio.sleep(0)
    speaks.send(b"two")
    assert (await got).data == b"two"
    # one that is cancelled takes no datagram with it
    gone = asyncio.create_task(hears.areceive())
    await asyncio.sleep(0)
    gone.cancel()
    await speaks.await_listener()
    speaks.send(b"three")
    assert (await hears.areceive()).data == b"three"

asyncio.run(tasks())

got = []

def take():
    while True:
        try:
            got.append(hears.receive().data)
        except (librecast.Closed, librecast.Ended):
            return

threads = [threading.Thread(target=take) for _ in range(2)]
for thread in threads:
    thread.start()
for number in range(100):
    speaks.send(bytes([number]))
while len(got) < 100:
    time.sleep(0.01)
hears.close()
for thread in threads:
    thread.join()
assert sorted(got) == [bytes([number]) for number in range(100)], got
hears.close()
try:
    hears.send(b"four")
    raise SystemExit("a closed channel sends")
except librecast.Closed:
    print("all")
"#;

#[test]
fn a_channel_serves_threads_and_tasks_and_survives_what_callers_do_wrong() {
    with_members("library-callers", ["alpha"], |_, [alpha]| {
        let script = alpha.host.write("callers.py", CALLERS)?;
        let script = script.display().to_string();
        let package = format!("PYTHONPATH={}", source("python").display());
        let library = library_of(&alpha.host)?;
        let words = [library.as_str(), &package, "python3", "-B", &script];
        let ended = alpha.host.run("env", &words)?.success()?;
        holds!(ended.stdout == "all\n", "{ended:?}")
    });
}
