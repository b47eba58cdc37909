//! Closed hosts that share only a Matrix room: homeserver.py, and Synapse.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use crate::foreign;
use crate::prelude::*;
use crate::reach::met_by;

const HOMESERVER: &str = include_str!("homeserver.py");
const PORT: &str = "8008";

/// Returns a node's state of its room: whether it is open, and the note.
fn room_of(member: &Member) -> Result<(bool, String)> {
    let status = member.status()?;
    let doors = status["doors"].as_array().context("doors")?;
    let door = doors.iter().find(|door| door["kind"] == "matrix");
    let door = door.context("no room")?;
    let note = door["note"].as_str().unwrap_or_default();
    Ok((door["open"] == true, note.to_owned()))
}

fn wait_note(member: &Member, part: &str) -> Result<()> {
    eventually(&format!("{} says {part}", member.host.name()), || {
        let (open, note) = room_of(member)?;
        holds!(note.contains(part), "{open}, {note}")
    })
}

/// Writes an access token for the daemon's user only, and a configuration with only an account.
fn configure(host: &Host, homeserver: &str, token: &str) -> Result<()> {
    let file = host.write("matrix.token", format!("{token}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    host.configure(&format!(
        "[signal]\nlan = false\n[matrix]\nhomeserver = {homeserver:?}\ntoken-file = {file:?}\n"
    ))
}

/// Makes members: the first founds, the rest join by a token that names the room.
fn members_in(hosts: Vec<Host>, room: &str) -> Result<Vec<Member>> {
    let (founder, others) = hosts.split_first().context("hosts")?;
    founder
        .run("lcroute", &["init", "--name", founder.name()])?
        .success()?;
    let invited = founder.call(&format!("lcroute invite --matrix {room}"))?;
    let token = invited.stdout.trim();
    for host in others {
        let joined = host.run("lcroute", &["join", token, "--name", host.name()])?;
        joined.success()?;
    }
    let members: Vec<_> = hosts.into_iter().map(Member::new).collect();
    // the founder has no token: its own configuration names the room
    let config = members[0].host.path("lcroute.toml");
    let text = fs::read_to_string(&config)? + &format!("room = {room:?}\n");
    fs::write(&config, text)?;
    Ok(members)
}

/// The same, with started programs.
fn meet_in(hosts: Vec<Host>, room: &str) -> Result<(Vec<Member>, Vec<Process>)> {
    let mut members = members_in(hosts, room)?;
    members.iter_mut().try_for_each(Member::start)?;
    let programs = members.iter().map(|m| m.host.spawn("lcroute-reach", &[]));
    let programs = programs.collect::<Result<_>>()?;
    Ok((members, programs))
}

/// Starts closed hosts with accounts of their own in one room, and nothing else in common.
pub(crate) fn members_of_a_room(lab: &Lab, names: &[&str]) -> Result<(Process, Vec<Member>)> {
    let server = lab.host("server")?;
    let address = server.v4()?.to_string();
    let serving = serve(&server)?;
    let hosts = lab.closed_hosts(names)?;
    for (host, token) in hosts.iter().zip(["syt_aaaa", "syt_bbbb", "syt_cccc"]) {
        configure(host, &format!("http://{address}:{PORT}"), token)?;
    }
    let members = members_in(hosts, &format!("#lc:{address}"))?;
    Ok((serving, members))
}

/// Runs homeserver.py for three accounts.
fn serve(server: &Host) -> Result<Process> {
    let script = server.write("homeserver.py", HOMESERVER)?;
    let address = server.v4()?.to_string();
    let accounts = [
        "@a:server=syt_aaaa",
        "@b:server=syt_bbbb",
        "@c:server=syt_cccc",
    ];
    let args = [script.to_str().context("path")?, &address, PORT];
    let serving = server.spawn("python3", &[&args[..], &accounts].concat())?;
    serving.prints("serves")?;
    Ok(serving)
}

#[test]
fn closed_hosts_that_share_a_token_and_a_room_link() {
    world("matrix", |lab| {
        let server = lab.host("server")?;
        let address = server.v4()?.to_string();
        let _serving = serve(&server)?;
        let url = format!("http://{address}:{PORT}");
        let change = |what: &str| {
            let url = format!("{url}/_matrix/client/v3//test/{what}");
            server.run("curl", &["-sf", "-X", "POST", &url])?.success()
        };
        // two nodes of one account
        let hosts = lab.closed_hosts(&["a", "b", "c"])?;
        for (host, token) in hosts.iter().zip(["syt_aaaa", "syt_bbbb", "syt_bbbb"]) {
            configure(host, &url, token)?;
        }
        let began = Instant::now();
        let (mut members, programs) = meet_in(hosts, &format!("#lc:{address}"))?;
        for member in &members {
            member.wait_links(2)?;
        }
        println!("linked after {} ms", began.elapsed().as_millis());
        for member in &members {
            let by = met_by(member)?;
            ensure!(by.iter().any(|by| by == "matrix"), "{by:?}");
            wait_note(member, "records of others: 2")?;
            ensure!(room_of(member)?.0, "closed");
        }
        let said = members[1].host.run("lcroute", &["doctor"])?.stdout;
        ensure!(said.contains("by it; the access token goes over"), "{said}");

        // refusals are reported, links stay, and recovery is automatic
        change("forbid")?;
        members[1].stop()?;
        members[1].start()?;
        wait_note(&members[1], "permission to send")?;
        members[1].wait_links(2)?;
        change("garbage")?;
        wait_note(&members[0], "the homeserver's answer")?;
        members[0].wait_links(2)?;
        change("normal")?;
        for member in &members {
            wait_note(member, "records of others: 2")?;
        }
        change("evict/@b:server")?;
        wait_note(&members[2], "records of others: 2")?;
        change("revoke/@a:server")?;
        members[0].host.call("lcroute reload")?;
        wait_note(&members[0], "M_UNKNOWN_TOKEN")?;
        members[0].wait_links(2)?;
        // switched off at run time
        members[0].host.reconfigure("[signal]\nlan = false\n")?;
        ensure!(room_of(&members[0]).is_err(), "still on");

        for member in &members {
            let logs = fs::read_dir(member.host.path("logs"))?;
            for log in logs.collect::<Result<Vec<_>, _>>()? {
                let text = fs::read_to_string(log.path())?;
                ensure!(
                    !text.contains("syt_"),
                    "{} has a token",
                    log.path().display()
                );
            }
        }
        for program in &programs {
            println!(
                "lcroute-reach: {} kB at most",
                program.peak_memory()? / 1_000
            );
        }
        Ok(())
    });
}

/// A certificate authority for tests.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    certificate: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self {
            issuer,
            certificate,
        })
    }

    /// Returns key and certificate of a server, valid until the end of `year`, in PEM.
    fn certify(&self, name: &str, year: i32) -> Result<String> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        // with the authority's own name it would look self-signed to OpenSSL
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(key.serialize_pem() + &certificate.pem())
    }
}

#[test]
fn a_homeserver_is_spoken_with_if_an_authority_of_this_host_vouches_for_its_name() {
    world("matrix-tls", |lab| {
        let server = lab.host("server")?;
        let address = server.v4()?.to_string();
        let (authority, other) = (Authority::new()?, Authority::new()?);
        let show = |pem: Result<String>| server.write("tls.pem", pem?);
        show(authority.certify(&address, 2022))?;
        let serving = serve(&server)?;
        let hosts = lab.closed_hosts(&["a", "b"])?;
        let url = format!("https://{address}:{PORT}");
        for (host, token) in hosts.iter().zip(["syt_aaaa", "syt_bbbb"]) {
            host.write("authorities.pem", &authority.certificate)?;
            configure(host, &url, token)?;
        }
        let (members, mut programs) = meet_in(hosts, &format!("#lc:{address}"))?;
        let mut begin_anew = || -> Result<()> {
            for (program, member) in programs.iter_mut().zip(&members) {
                program.stop()?;
                *program = member.host.spawn("lcroute-reach", &[])?;
            }
            Ok(())
        };
        let refused = |why: &str| {
            let said = format!("the homeserver's certificate {why}");
            members.iter().try_for_each(|m| wait_note(m, &said))
        };
        refused("has expired: 2022-12-31")?;
        show(authority.certify("elsewhere.example", 2099))?;
        begin_anew()?;
        refused(&format!("has another name than {url}"))?;
        show(other.certify(&address, 2099))?;
        begin_anew()?;
        refused("is of no authority that this host trusts")?;
        for member in &members {
            member.wait_links(0)?;
            // a later trusted certificate takes effect automatically
            member.host.write("authorities.pem", &other.certificate)?;
        }
        for member in &members {
            member.wait_links(1)?;
            ensure!(met_by(member)? == ["matrix"], "{:?}", member.peers()?);
            wait_note(member, "records of others: 1")?;
            let said = member.host.run("lcroute", &["doctor"])?.stdout;
            ensure!(!said.contains("in the clear"), "{said}");
        }
        // each refusal preceded the request, so no token left
        let alerts = serving.stderr();
        let alerts = alerts.lines().filter(|line| line.contains("SSLError"));
        holds!(alerts.count() >= 6, "{}", serving.stderr())
    });
}

/// Returns a configuration of Synapse for only two accounts, behind TLS.
fn synapse_config(address: &str) -> Value {
    json!({
        "server_name": "server",
        "tls_certificate_path": "tls.pem",
        "tls_private_key_path": "tls.pem",
        "listeners": [{
            "port": 8008, "type": "http", "tls": true, "bind_addresses": [address],
            "resources": [{ "names": ["client"] }],
        }],
        "database": { "name": "sqlite3", "args": { "database": "homeserver.db" } },
        "signing_key_path": "signing.key",
        "media_store_path": "media",
        "pid_file": "synapse.pid",
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "report_stats": false,
    })
}

/// Options of curl for the homeserver's certificate.
const TRUST: [&str; 2] = ["--cacert", "authorities.pem"];

/// Sends a request; returns its answer, which must be no error.
fn ask(host: &Host, url: &str, token: &str, body: &Value) -> Result<Value> {
    let (bearer, body) = (format!("Authorization: Bearer {token}"), body.to_string());
    let mut args = vec!["-s", "-X", "POST", "-d", &body, url];
    args.extend(TRUST);
    if !token.is_empty() {
        args.extend(["-H", &bearer]);
    }
    let said = host.run("curl", &args)?.success()?.stdout;
    let said: Value = serde_json::from_str(&said)?;
    ensure!(said["errcode"].is_null(), "{url}: {said}");
    Ok(said)
}

#[test]
#[ignore = "`make test-all`: a program of others"]
fn closed_hosts_link_by_a_room_of_synapse() {
    world("matrix-synapse", |lab| {
        let server = lab.host("server")?;
        let address = server.v4()?.to_string();
        let authority = Authority::new()?;
        server.write("tls.pem", authority.certify(&address, 2099)?)?;
        server.write("authorities.pem", &authority.certificate)?;
        // JSON is YAML
        server.write("homeserver.yaml", synapse_config(&address).to_string())?;
        let python = foreign::root()?.join("synapse/bin/python");
        let python = python.to_str().context("path")?;
        let args = ["-m", "synapse.app.homeserver", "-c", "homeserver.yaml"];
        let keys = [&[python][..], &args, &["--generate-keys"]].concat();
        server.run("env", &keys)?.success()?;
        let synapse = server.spawn("env", &[&[python][..], &args].concat())?;
        let url = format!("https://{address}:{PORT}");
        let versions = format!("{url}/_matrix/client/versions");
        eventually("Synapse serves", || {
            holds!(
                server
                    .ask("curl", &[&TRUST[..], &["-sf", &versions]].concat())?
                    .code
                    == 0,
                "{}",
                foreign::said(&synapse)
            )
        })?;
        let url = format!("{url}/_matrix/client/v3");
        let account = |name: &str| -> Result<String> {
            let body = json!({ "username": name, "password": "not-a-secret", "auth": { "type": "m.login.dummy" } });
            let said = ask(&server, &format!("{url}/register"), "", &body)?;
            Ok(said["access_token"].as_str().context("token")?.to_owned())
        };
        let tokens = [account("a")?, account("b")?];
        // as in the guide
        let room = json!({
            "room_alias_name": "lc", "invite": ["@b:server"], "preset": "private_chat",
            "power_level_content_override": { "events": { "org.librecast.lcroute.node": 0 } },
        });
        ask(&server, &format!("{url}/createRoom"), &tokens[0], &room)?;
        let hosts = lab.closed_hosts(&["a", "b"])?;
        for (host, token) in hosts.iter().zip(&tokens) {
            host.write("authorities.pem", &authority.certificate)?;
            configure(host, &format!("https://{address}:{PORT}"), token)?;
        }
        let began = Instant::now();
        let (mut members, _programs) = meet_in(hosts, "#lc:server")?;
        for member in &members {
            member.wait_links(1)?;
            ensure!(met_by(member)? == ["matrix"], "{:?}", member.peers()?);
            wait_note(member, "records of others: 1")?;
        }
        println!("linked after {} ms", began.elapsed().as_millis());
        // a restarted node is found again
        members[1].daemon()?.kill()?;
        members[0].wait_links(0)?;
        members[1].start()?;
        members[0].wait_links(1)?;

        // a stranger's messages to the account's devices are only counted
        let stranger = account("stranger")?;
        let flood = json!({ "messages": { "@b:server": { "*": { "text": "x".repeat(50_000) } } } });
        for n in 0..5 {
            let path = format!("{url}/sendToDevice/org.example/{n}");
            let (bearer, body) = (
                format!("Authorization: Bearer {stranger}"),
                flood.to_string(),
            );
            let args = ["-sf", "-X", "PUT", "-H", &bearer, "-d", &body, &path];
            server
                .run("curl", &[&TRUST[..], &args].concat())?
                .success()?;
        }
        wait_note(&members[1], "dropped 5 to_device_unasked")?;
        members[1].wait_links(1)
    });
}
