use super::*;

/// A time, and the start of a simulation.
const TIME: u64 = 1_800_000_000_000;

/// Boards of several hosts on one network.
struct World {
    folder: tempfile::TempDir,
    boards: Vec<(Board, u64)>,
    now: Instant,
    passed: u64,
    away: Vec<usize>,
}

impl World {
    /// The owner's board; hosts' clocks differ by these milliseconds.
    fn new(clocks: &[u64]) -> Self {
        let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let owner = Board::create(&folder.path().join("0"), "news", now).unwrap();
        let text = owner.text().clone();
        let mut boards = vec![(owner, clocks[0])];
        for (n, clock) in clocks.iter().enumerate().skip(1) {
            let path = folder.path().join(n.to_string());
            boards.push((Board::follow(&path, "news", &text, now).unwrap(), *clock));
        }
        Self {
            folder,
            boards,
            now,
            passed: 0,
            away: Vec::new(),
        }
    }

    fn time(&self, host: usize) -> UnixTime {
        UnixTime::from_millis(TIME + self.boards[host].1 + self.passed)
    }

    /// Passes packets for this many seconds.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now += Duration::from_millis(100);
            self.passed += 100;
            for from in 0..self.boards.len() {
                let time = self.time(from);
                let board = &mut self.boards[from].0;
                board.turn(time, self.now).unwrap();
                let packets = board.take_transmits();
                for to in (0..self.boards.len()).filter(|to| *to != from) {
                    if self.away.contains(&from) || self.away.contains(&to) {
                        continue;
                    }
                    let time = self.time(to);
                    for (_, packet) in &packets {
                        let source = IpAddr::from([10, 0, 0, from as u8]);
                        let board = &mut self.boards[to].0;
                        board.handle_packet(source, packet, time, self.now);
                    }
                }
            }
        }
    }

    fn post(&mut self, host: usize, text: &str) -> anyhow::Result<Wait> {
        let content = Content {
            title: None,
            text: text.to_owned(),
        };
        let (time, now) = (self.time(host), self.now);
        self.boards[host].0.post(&content, time, now)
    }

    fn texts(&self, host: usize) -> Vec<String> {
        let posts = self.boards[host].0.posts.iter();
        posts.map(|post| post.content.text.clone()).collect()
    }
}

#[test]
fn a_text_comes_back_and_a_damaged_or_foreign_one_is_refused() {
    let text = BoardText {
        owner: SecretKey::from_seed(&[1; 32]).peer_id(),
        read_key: [2; 32],
        name: "n".repeat(64),
    };
    let line = text.encode();
    assert!(line.starts_with("lcb1"));
    assert_eq!(BoardText::decode(&line).unwrap(), text);
    assert!(BoardText::decode(&line[..line.len() - 1]).is_err());
    for name in ["", "../x", "a b", ".", "\u{7}"] {
        let name = name.to_owned();
        let hostile = BoardText {
            name,
            ..text.clone()
        };
        assert!(BoardText::decode(&hostile.encode()).is_err());
    }
    let grant = text::encode(TextKind::CastingGrant, &[1; 200]);
    assert!(BoardText::decode(&grant).is_err());
}

#[test]
fn readers_have_the_posts_of_the_owner_and_writers_alone_and_later_ones_get_them_from_any_holder() {
    let year = 365 * 86_400_000;
    let mut world = World::new(&[0, 3 * year, 0]);
    world.away = vec![2];
    assert!(world.post(0, "early").unwrap().is_some());
    world.run(10);
    let long = "long ".repeat(2_000);
    assert_eq!(world.post(0, &long).unwrap(), None);
    let refused = world.post(1, "not yet").unwrap_err();
    let refused = refused.downcast_ref::<ExitError>().unwrap();
    assert_eq!(refused.exit, Exit::NotPermitted);
    let writer = world.boards[1].0.author();
    let (time, now) = (world.time(0), world.now);
    assert!(world.boards[1].0.add_writer(writer, time, now).is_err());
    assert_eq!(
        world.boards[0].0.add_writer(writer, time, now).unwrap(),
        None
    );
    world.run(10);
    assert_eq!(world.post(1, "by the writer").unwrap(), None);
    world.run(10);
    assert_eq!(world.texts(0), [long.clone(), "by the writer".into()]);
    // the owner leaves, and the third host gets all from the second
    world.away = vec![0];
    world.run(90);
    let mut got = world.texts(2);
    got.sort();
    assert_eq!(got, ["by the writer".to_owned(), long]);
}

#[test]
fn a_board_keeps_its_posts_over_a_restart_and_garbage_changes_nothing() {
    let mut world = World::new(&[0, 0]);
    world.run(10);
    assert_eq!(world.post(0, "first").unwrap(), None);
    // it is on disk now: the program ends without another turn
    let path = world.folder.path().join("0");
    world.boards[0].0 = Board::open(&path, "news", world.now).unwrap();
    assert_eq!(world.texts(0), ["first"]);
    let (time, now) = (world.time(1), world.now);
    for length in 0..1_400 {
        let garbage: Vec<u8> = (0..length)
            .map(|n: usize| (n * 31 + length) as u8)
            .collect();
        let board = &mut world.boards[1].0;
        board.handle_packet([10, 0, 0, 9].into(), &garbage, time, now);
    }
    world.run(90);
    assert_eq!(world.texts(1), ["first"]);
}

#[test]
fn a_flood_of_strangers_that_know_the_read_key_shows_nothing_and_pushes_nothing_out() {
    let mut world = World::new(&[0, 0]);
    world.run(10);
    assert_eq!(world.post(0, "by the owner").unwrap(), None);
    // its packets come to the same group, under the same key
    let key = SecretKey::generate();
    let text = BoardText {
        owner: key.peer_id(),
        ..world.boards[0].0.text().clone()
    };
    let path = world.folder.path().join("stranger");
    let stranger = Board::make(&path, "news", &text, &key, world.now).unwrap();
    assert_eq!(stranger.address(), world.boards[0].0.address());
    world.boards.push((stranger, 0));
    world.run(10);
    for n in 0..200 {
        assert_eq!(world.post(2, &format!("spam {n}")).unwrap(), None);
    }
    world.run(10);
    assert_eq!(world.texts(2).len(), 200);
    for host in [0, 1] {
        assert_eq!(world.texts(host), ["by the owner"]);
        assert_eq!(world.boards[host].0.status().log.entries, 1);
    }
    assert_eq!(world.post(0, "still").unwrap(), None);
    world.run(10);
    assert_eq!(world.texts(1), ["by the owner", "still"]);
}

#[test]
fn a_key_on_two_hosts_is_noticed_and_a_copied_folder_waits_for_another_host() {
    let mut world = World::new(&[0, 0]);
    world.run(10);
    assert_eq!(world.post(0, "first").unwrap(), None);
    let (original, copy) = (
        world.folder.path().join("0"),
        world.folder.path().join("copy"),
    );
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&original).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    assert_eq!(world.post(0, "second").unwrap(), None);
    world.run(10);
    world.away = vec![0];
    let copied = Board::open(&copy, "news", world.now).unwrap();
    world.boards.push((copied, 0));
    assert_eq!(world.post(2, "old").unwrap().as_deref(), Some(UNSURE));
    world.run(90);
    // another host had the posts that the copy lacked
    assert_eq!(world.post(2, "third").unwrap(), None);
    world.run(10);
    assert_eq!(world.texts(1), ["first", "second", "third"]);
    // both go on: one key, two histories
    world.away = vec![2];
    world.boards[0].0.come_back(world.now);
    let of_original = world.boards[0].0.posts.iter().len();
    assert_eq!(of_original, 2);
    assert_eq!(world.post(0, "another third").unwrap(), None);
    world.away.clear();
    world.run(90);
    assert!(world.boards[1].0.status().log.entries >= 2);
    assert!(world.boards[0].0.status().problem.is_some());
    assert!(world.post(0, "no more").is_err());
}

#[test]
fn a_feed_has_no_markup_or_controls_of_a_post() {
    let mut world = World::new(&[0]);
    world.run(10);
    world
        .post(0, "<script>&\u{1b}[2J\u{0}\u{ffff}\nnext")
        .unwrap();
    let feed = world.boards[0].0.feed();
    assert!(feed.contains("&lt;script&gt;&amp;"), "{feed}");
    assert!(!feed.contains("<script"));
    assert!(
        !feed.chars().any(|c| c.is_control() && c != '\n'),
        "{feed:?}"
    );
    assert!(!feed.contains('\u{ffff}'));
}
