//! Guessed round trips of a link with each router, from the costs of all existing links.
//!
//! ```text
//!   shortest paths from 16 routers far apart ──PivotMDS──> a place on a plane for each router
//!   a spring for each link, with its round trip ──Vivaldi──> better places, and heights above
//!   guess of X and Y:  |place X - place Y| + height X + height Y,  at most the cost of the path
//! ```
//!
//! PivotMDS: Brandes and Pich, Graph Drawing 2006. Vivaldi, with heights for access links: Dabek,
//! Cox, Kaashoek and Morris, SIGCOMM 2004. There nodes exchange coordinates; this router computes
//! all of them from the link state, without messages. A router with false costs affects only its
//! own links: of both ends' costs the larger counts.

use std::sync::Arc;

use librecast::id::OriginId;
use librecast::time::Duration;

use super::{Graph, Tree, mix};

/// Routers with computed paths, for the first places. Chosen: more do not help 1,000 routers.
const PIVOTS: usize = 16;
/// Mean ratio of a round trip to its cost, rounded up to steps 1.5 times apart (`lsdb::cost`).
pub(crate) const MEAN_OF_STEP: f64 = 0.82;
/// Rounds of power iteration for an axis of the first places. Chosen: many more than necessary.
const AXIS_ROUNDS: usize = 50;
/// Most moves of a spring. Chosen: at 300 routers half as many make paths 3 % longer, twice as many
/// do not make them shorter.
const SPRING_ROUNDS: usize = 200;
/// Most moves of all springs together: packets wait for them, about 3 ms.
const SPRING_MOVES: usize = 300_000;
/// Share of a spring's misfit by which it moves its ends, first and last. Chosen.
const STEPS: [f64; 2] = [0.3, 0.02];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Guess {
    pub router: OriginId,
    /// Guessed round trip of a link with it.
    pub rtt: Duration,
    /// Cost of the shortest path, in units of 100 us.
    pub path: u32,
}

/// Guesses for the other routers that `own` reaches, in ascending order.
pub(crate) fn direct_rtts(graph: &Arc<Graph>, own: OriginId) -> Vec<Guess> {
    let Some(tree) = Tree::compute(graph, own) else {
        return Vec::new();
    };
    let routers: Vec<OriginId> = graph.reachable(own).collect();
    let Ok(here) = routers.binary_search(&own) else {
        return Vec::new();
    };
    let springs = Springs::of(graph, &routers, &tree);
    let spots = springs.spots(here);
    let others = routers.iter().enumerate().filter(|(at, _)| *at != here);
    let guess = |(at, router): (usize, &OriginId)| {
        let path = tree.distance(*router)?;
        let lengths = spots.iter().map(|spot| springs.length(spot, at));
        let units = lengths.fold(path.into(), f64::min);
        Some(Guess {
            router: *router,
            rtt: Duration::from_micros((units * 100.0) as u64),
            path,
        })
    };
    others.filter_map(guess).collect()
}

/// Distances of all routers from one of them.
type Distances = Vec<f64>;

fn distances(tree: &Tree, routers: &[OriginId]) -> Distances {
    let distance = |router| f64::from(tree.distance(router).unwrap_or(0));
    routers.iter().map(|router| distance(*router)).collect()
}

/// Distances from routers that are far from each other; the first is the root of `tree`.
fn pivots(graph: &Arc<Graph>, routers: &[OriginId], tree: &Tree) -> Vec<Distances> {
    let mut all = vec![distances(tree, routers)];
    let mut nearest = all[0].clone();
    while all.len() < PIVOTS {
        let farthest = (0..routers.len()).max_by(|a, b| nearest[*a].total_cmp(&nearest[*b]));
        let next = farthest.filter(|at| nearest[*at] > 0.0);
        let Some(tree) = next.and_then(|at| Tree::compute(graph, routers[at])) else {
            break;
        };
        let from_there = distances(&tree, routers);
        for (least, distance) in nearest.iter_mut().zip(&from_there) {
            *least = least.min(*distance);
        }
        all.push(from_there);
    }
    all
}

/// Places of `count` routers with about these distances.
fn first_places(count: usize, pivots: &[Distances]) -> Vec<[f64; 2]> {
    let square = |pivot: &Distances, at: usize| pivot[at] * pivot[at];
    let mean_of = |pivot| (0..count).map(|at| square(pivot, at)).sum::<f64>() / count as f64;
    let means: Vec<f64> = pivots.iter().map(mean_of).collect();
    let mean = means.iter().sum::<f64>() / pivots.len() as f64;
    // doubly centred squares: scalar products of places and pivots' places
    let row = |at: usize| -> Vec<f64> {
        let own = pivots.iter().map(|p| square(p, at)).sum::<f64>() / pivots.len() as f64;
        let columns = pivots.iter().zip(&means);
        columns
            .map(|(p, of_pivot)| (own + of_pivot - mean - square(p, at)) / 2.0)
            .collect()
    };
    let rows: Vec<Vec<f64>> = (0..count).map(row).collect();
    let mut axes: Vec<Vec<f64>> = Vec::new();
    for _ in 0..2 {
        let axis = widest_axis(&rows, pivots.len(), &axes);
        axes.push(axis);
    }
    let along = |row: &Vec<f64>, axis: &Vec<f64>| row.iter().zip(axis).map(|(a, b)| a * b).sum();
    rows.iter()
        .map(|row| [along(row, &axes[0]), along(row, &axes[1])])
        .collect()
}

/// The direction in which rows differ most, orthogonal to `across`: a power iteration.
fn widest_axis(rows: &[Vec<f64>], width: usize, across: &[Vec<f64>]) -> Vec<f64> {
    let mut products = vec![vec![0.0; width]; width];
    for row in rows {
        for (products, a) in products.iter_mut().zip(row) {
            products.iter_mut().zip(row).for_each(|(p, b)| *p += a * b);
        }
    }
    // any direction that is not in `across`
    let mut axis: Vec<f64> = (0..width).map(|n| 1.0 + (n % 5) as f64 / 2.0).collect();
    for _ in 0..AXIS_ROUNDS {
        for other in across {
            let common: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
            axis.iter_mut()
                .zip(other)
                .for_each(|(a, b)| *a -= common * b);
        }
        let turned = products
            .iter()
            .map(|row| row.iter().zip(&axis).map(|(a, b)| a * b).sum());
        let turned: Vec<f64> = turned.collect();
        let length = turned.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length <= 0.0 {
            return vec![0.0; width];
        }
        axis = turned.iter().map(|x| x / length).collect();
    }
    axis
}

/// A router's place on the plane, and its height above it.
#[derive(Debug, Clone, Copy, Default)]
struct Spot {
    place: [f64; 2],
    height: f64,
}

impl Spot {
    /// Moves it by this share of a spring's length, as in Vivaldi with heights.
    fn push(&mut self, from: [f64; 2], share: f64, with_height: bool) {
        for (x, from) in self.place.iter_mut().zip(from) {
            *x += share * (*x - from);
        }
        if with_height {
            self.height = (self.height + share * self.height.max(1.0)).max(0.0);
        }
    }

    fn length(&self, other: &Self) -> f64 {
        let [x, y] = [0, 1].map(|axis| self.place[axis] - other.place[axis]);
        // a square root is the same number on every machine
        (x * x + y * y).sqrt() + self.height + other.height
    }
}

/// Routers, and a spring for each link.
struct Springs {
    spots: Vec<Spot>,
    /// Two routers, and the spring's length at rest.
    links: Vec<(usize, usize, f64)>,
}

impl Springs {
    /// Springs at rest. `tree` is that of a router that reaches `routers`.
    fn of(graph: &Arc<Graph>, routers: &[OriginId], tree: &Tree) -> Self {
        let links = routers.iter().enumerate().flat_map(|(at, router)| {
            let upward = graph.neighbors(*router).filter(|(to, _)| to > router);
            upward.filter_map(move |(to, cost)| {
                let rest = f64::from(cost) * MEAN_OF_STEP;
                Some((at, routers.binary_search(&to).ok()?, rest))
            })
        });
        let places = first_places(routers.len(), &pivots(graph, routers, tree));
        let spot = |place| Spot { place, height: 0.0 };
        let mut springs = Self {
            links: links.collect(),
            spots: places.into_iter().map(spot).collect(),
        };
        springs.scale();
        // two routers at one place would stay together
        for (spot, router) in springs.spots.iter_mut().zip(routers) {
            let name = mix(router.0);
            let little = |bits: u64| f64::from(bits as u16) / f64::from(u16::MAX);
            spot.place[0] += little(name);
            spot.place[1] += little(name >> 16);
        }
        springs.relax();
        springs
    }

    /// Scales the places until springs fit best, as paths are longer than links.
    fn scale(&mut self) {
        let (mut product, mut square) = (0.0, 0.0);
        for &(a, b, rest) in &self.links {
            let apart = self.spots[a].length(&self.spots[b]);
            product += apart * rest;
            square += apart * apart;
        }
        if square > 0.0 {
            let scale = product / square;
            let places = self.spots.iter_mut().flat_map(|spot| &mut spot.place);
            places.for_each(|x| *x *= scale);
        }
    }

    /// Relaxes the springs. Heights stand for misfits, and rise once places have settled.
    fn relax(&mut self) {
        let rounds = (SPRING_MOVES / self.links.len().max(1)).min(SPRING_ROUNDS);
        for round in 0..rounds {
            let share = round as f64 / rounds as f64;
            let step = STEPS[0] + (STEPS[1] - STEPS[0]) * share;
            for &(a, b, rest) in &self.links {
                let [one, other] = [self.spots[a], self.spots[b]];
                let length = one.length(&other).max(1.0);
                let share = step * (rest - length) / 2.0 / length;
                let with_height = round * 2 >= rounds;
                self.spots[a].push(other.place, share, with_height);
                self.spots[b].push(one.place, share, with_height);
            }
        }
    }

    /// Possible places of a router: its own, and its mirror image if its springs fit that as well,
    /// such as when all lead to two towns.
    fn spots(&self, at: usize) -> Vec<Spot> {
        let own = self.spots[at];
        let links = self.links.iter().filter_map(|&(a, b, rest)| match at {
            _ if at == a => Some((self.spots[b], rest)),
            _ if at == b => Some((self.spots[a], rest)),
            _ => None,
        });
        let links: Vec<(Spot, f64)> = links.collect();
        let mut image = Spot {
            place: mirrored(own.place, &links),
            height: 0.0,
        };
        for round in 0..SPRING_ROUNDS {
            for (other, rest) in &links {
                let length = image.length(other).max(1.0);
                let share = STEPS[0] * (rest - length) / length / links.len() as f64;
                image.push(other.place, share, round * 2 >= SPRING_ROUNDS);
            }
        }
        let misfit = |spot: &Spot| -> f64 {
            let off = links.iter().map(|(other, rest)| spot.length(other) - rest);
            off.map(|off| off * off).sum()
        };
        // costs are rounded by about a tenth
        let noise: f64 = links.iter().map(|(_, rest)| rest * rest / 100.0).sum();
        if misfit(&image) <= misfit(&own) + noise {
            vec![own, image]
        } else {
            vec![own]
        }
    }

    fn length(&self, spot: &Spot, at: usize) -> f64 {
        spot.length(&self.spots[at])
    }
}

/// The mirror image of `place` at the line that is nearest to `links`.
fn mirrored(place: [f64; 2], links: &[(Spot, f64)]) -> [f64; 2] {
    let count = links.len().max(1) as f64;
    let [mx, my] = [0, 1].map(|n| links.iter().map(|(s, _)| s.place[n]).sum::<f64>() / count);
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (spot, _) in links {
        let [x, y] = [spot.place[0] - mx, spot.place[1] - my];
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    let spread = ((xx - yy) * (xx - yy) + 4.0 * xy * xy).sqrt();
    let mut line = [xx - yy + spread, 2.0 * xy];
    let length = (line[0] * line[0] + line[1] * line[1]).sqrt();
    line = if length > 0.0 {
        line.map(|x| x / length)
    } else {
        [0.0, 1.0]
    };
    let [x, y] = [place[0] - mx, place[1] - my];
    let along = x * line[0] + y * line[1];
    [
        mx + 2.0 * along * line[0] - x,
        my + 2.0 * along * line[1] - y,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::random::Random;

    /// Routers on a square of 60 ms one way, behind access links of up to 4 ms each.
    struct Field {
        places: Vec<[f64; 3]>,
    }

    impl Field {
        fn new(count: usize, seed: u64) -> Self {
            let mut random = Random::new(seed);
            let mut unit = || f64::from(random.next() as u32) / f64::from(u32::MAX);
            let places = (0..count).map(|_| [unit() * 1_200.0, unit() * 1_200.0, unit() * 80.0]);
            Self {
                places: places.collect(),
            }
        }

        /// The round trip of a link, in units of 100 us.
        fn rtt(&self, a: usize, b: usize) -> f64 {
            let (p, q) = (self.places[a], self.places[b]);
            let [x, y] = [p[0] - q[0], p[1] - q[1]];
            20.0 + (x * x + y * y).sqrt() + p[2] + q[2]
        }

        /// The link's cost, rounded up to a step, as routers advertise it.
        fn cost(&self, a: usize, b: usize) -> u16 {
            let mut step = 10.0;
            while step < self.rtt(a, b) {
                step *= 1.5;
            }
            step as u16
        }

        /// Links of three random rings, and for each router the best two of eight random ones.
        fn graph(&self) -> Arc<Graph> {
            let count = self.places.len();
            let mut links = Vec::new();
            let mut add = |a: usize, b: usize| {
                let [one, other] = [a, b].map(|at| OriginId(at as u64));
                links.push((one, other, self.cost(a, b)));
            };
            for ring in 0..3 {
                let mut order = Vec::from_iter(0..count);
                order.sort_by_key(|at| mix(mix(*at as u64) ^ ring));
                (0..count).for_each(|n| add(order[n], order[(n + 1) % count]));
            }
            for a in 0..count {
                let tried = (1..9).map(|n| mix(mix(a as u64) ^ n) as usize % count);
                let mut tried: Vec<usize> = tried.filter(|b| *b != a).collect();
                tried.sort_by_key(|b| self.cost(a, *b));
                tried.iter().take(2).for_each(|b| add(a, *b));
            }
            Arc::new(Graph::new(0, [], &links))
        }
    }

    #[test]
    fn guesses_are_mostly_within_an_eighth_and_better_than_paths() {
        check_guesses(&[(60, 1), (200, 2)]);
    }

    #[test]
    #[ignore = "long: `make test-all`"]
    fn guesses_of_large_networks_are_mostly_within_an_eighth() {
        check_guesses(&[(300, 2), (600, 3)]);
    }

    /// Checks guesses in networks of this many routers, at random places of a seed.
    fn check_guesses(networks: &[(usize, u64)]) {
        for &(count, seed) in networks {
            let field = Field::new(count, seed);
            let graph = field.graph();
            let (mut errors, mut by_guess, mut by_path, mut nearest) = (Vec::new(), 0.0, 0.0, 0.0);
            for own in 0..60 {
                let own = OriginId(own);
                let guesses = direct_rtts(&graph, own);
                assert_eq!(guesses.len(), count - 1);
                let truth = |router: OriginId| field.rtt(own.0 as usize, router.0 as usize);
                let error = |guess: &Guess| {
                    (guess.rtt.as_micros() as f64 / 100.0 / truth(guess.router) - 1.0).abs()
                };
                errors.extend(guesses.iter().map(error));
                let is_new = |router: OriginId| graph.neighbors(own).all(|(n, _)| n != router);
                let new = || guesses.iter().filter(|g| is_new(g.router));
                by_guess += truth(new().min_by_key(|g| g.rtt).unwrap().router);
                by_path += truth(new().min_by_key(|g| g.path).unwrap().router);
                let all = new().map(|g| truth(g.router));
                nearest += all.min_by(f64::total_cmp).unwrap();
            }
            errors.sort_by(f64::total_cmp);
            let median = errors[errors.len() / 2];
            println!("{count}: {median} {by_guess} {by_path} {nearest}");
            assert!(median < 0.125, "{count}: {median}");
            assert!(
                by_guess < by_path && nearest <= by_guess,
                "{count}: {by_guess} {by_path}"
            );
        }
    }

    /// Of 24 routers in three towns, one has links with the other two towns only.
    #[test]
    fn who_has_links_with_two_other_towns_may_be_in_the_third() {
        let town = |n: usize| [[0.0, 0.0], [900.0, 100.0], [300.0, 800.0]][n % 3];
        let place = |n: usize| [town(n)[0] + n as f64, town(n)[1], 0.0];
        let field = Field {
            places: (0..24).map(place).collect(),
        };
        let mut links = Vec::new();
        let mut add = |a: usize, b: usize| {
            links.push((OriginId(a as u64), OriginId(b as u64), field.cost(a, b)));
        };
        for n in 1..24 {
            for to in [1, 3, 7].map(|step| (n + step) % 24) {
                if to != 0 {
                    add(n, to);
                }
            }
        }
        for to in [1, 4, 7, 2, 5, 8] {
            add(0, to);
        }
        let graph = Arc::new(Graph::new(0, [], &links));
        let mut guesses = direct_rtts(&graph, OriginId(0));
        guesses.sort_by_key(|g| g.rtt);
        let towns = guesses.iter().map(|g| g.router.0 % 3);
        assert_eq!(Vec::from_iter(towns.take(7)), [0; 7], "{guesses:?}");
    }

    #[test]
    fn small_and_strange_networks_have_guesses_too() {
        let routers = [1, 2, 3, 4].map(OriginId);
        let [a, b, c, d] = routers;
        for links in [
            vec![],
            vec![(a, b, 7u16)],
            vec![(a, b, 1), (b, c, 1), (c, a, 1)],
            vec![(a, b, u16::MAX), (b, c, 1), (c, d, u16::MAX)],
            // d is not reached
            vec![(a, b, 1), (a, c, u16::MAX), (b, c, 1)],
        ] {
            let graph = Arc::new(Graph::new(0, routers, &links));
            let guesses = direct_rtts(&graph, a);
            let reached: Vec<_> = graph.reachable(a).filter(|r| *r != a).collect();
            assert_eq!(Vec::from_iter(guesses.iter().map(|g| g.router)), reached);
            for guess in guesses {
                let path = Tree::compute(&graph, a).unwrap().distance(guess.router);
                assert_eq!(Some(guess.path), path);
                assert!(
                    guess.rtt <= Duration::from_micros(100) * guess.path,
                    "{guess:?}"
                );
            }
        }
        let apart = Arc::new(Graph::new(0, [a], &[(b, c, 1u16)]));
        assert!(direct_rtts(&apart, d).is_empty());
    }
}
