//! The round trip of a link with each router, guessed from the costs of all links that there are.
//!
//! ```text
//!   shortest paths from 16 routers far apart ──PivotMDS──> a place on a plane for each router
//!   a spring for each link, as long as its round trip ──Vivaldi──> better places, and heights above the plane
//!   guess of X and Y:  |place of X - place of Y| + height of X + height of Y,  at most the cost of the path
//! ```
//!
//! PivotMDS: Brandes and Pich, Graph Drawing 2006. Vivaldi, where heights stand for access links: Dabek, Cox, Kaashoek
//! and Morris, SIGCOMM 2004; there nodes exchange coordinates, here each router computes all of them from the link state.
//! Nothing is on the wire, and who lies can only move what its own links bear on: of both ends' costs the larger counts.

use std::sync::Arc;

use librecast::id::OriginId;
use librecast::time::Duration;

use super::{Graph, Tree, mix};

/// Routers whose paths to all others give the first places. Chosen: more do not help 1,000 routers.
const PIVOTS: usize = 16;
/// What a round trip is of its cost, on average: that is rounded up to steps which are 1.5 times apart (`lsdb::cost`).
pub(crate) const MEAN_OF_STEP: f64 = 0.82;
/// Times that the first places' axes are improved. Chosen: many more than it takes.
const AXIS_ROUNDS: usize = 50;
/// Times that each spring moves its ends. Chosen: half as many make paths at 300 routers 3 % longer, twice as many not shorter.
const SPRING_ROUNDS: usize = 200;
/// The same for all springs together: packets wait for them, about 3 ms.
const SPRING_MOVES: usize = 300_000;
/// Share of what a spring is off by which it moves its ends, first and last. Chosen.
const STEPS: [f64; 2] = [0.3, 0.02];

/// Guesses for the other routers that `own` reaches, in ascending order.
pub(crate) fn direct_rtts(graph: &Arc<Graph>, own: OriginId) -> Vec<(OriginId, Duration)> {
    let Some(tree) = Tree::compute(graph, own) else {
        return Vec::new();
    };
    let routers: Vec<OriginId> = graph.reachable(own).collect();
    let Ok(here) = routers.binary_search(&own) else {
        return Vec::new();
    };
    let springs = Springs::of(graph, &routers, &tree);
    let others = routers.iter().enumerate().filter(|(at, _)| *at != here);
    let guess = |(at, router): (usize, &OriginId)| {
        let path = tree.distance(*router)?;
        let units = springs.length(here, at).min(path.into());
        Some((*router, Duration::from_micros((units * 100.0) as u64)))
    };
    others.filter_map(guess).collect()
}

/// Distances of all routers from one of them.
type Distances = Vec<f64>;

fn distances(tree: &Tree, routers: &[OriginId]) -> Distances {
    let distance = |router| f64::from(tree.distance(router).unwrap_or(0));
    routers.iter().map(|router| distance(*router)).collect()
}

/// Distances from routers that are far from each other, `tree`'s root first.
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

/// Places of so many routers, of which the distances are about these.
fn first_places(count: usize, pivots: &[Distances]) -> Vec<[f64; 2]> {
    let square = |pivot: &Distances, at: usize| pivot[at] * pivot[at];
    let mean_of = |pivot| (0..count).map(|at| square(pivot, at)).sum::<f64>() / count as f64;
    let means: Vec<f64> = pivots.iter().map(mean_of).collect();
    let mean = means.iter().sum::<f64>() / pivots.len() as f64;
    // doubly centred squares: the products of places with those of pivots
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

/// The direction in which rows differ most, across those that are given: an eigenvector, by power iteration.
fn widest_axis(rows: &[Vec<f64>], width: usize, across: &[Vec<f64>]) -> Vec<f64> {
    let mut products = vec![vec![0.0; width]; width];
    for row in rows {
        for (products, a) in products.iter_mut().zip(row) {
            products.iter_mut().zip(row).for_each(|(p, b)| *p += a * b);
        }
    }
    // any direction that is not across
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

/// Routers on a plane and above it, and a spring for each link.
struct Springs {
    places: Vec<[f64; 2]>,
    heights: Vec<f64>,
    /// Two routers, and the spring's length at rest.
    links: Vec<(usize, usize, f64)>,
}

impl Springs {
    /// Springs at rest. `tree` is that of a router which reaches `routers`.
    fn of(graph: &Arc<Graph>, routers: &[OriginId], tree: &Tree) -> Self {
        let links = routers.iter().enumerate().flat_map(|(at, router)| {
            let upward = graph.neighbors(*router).filter(|(to, _)| to > router);
            upward.filter_map(move |(to, cost)| {
                let rest = f64::from(cost) * MEAN_OF_STEP;
                Some((at, routers.binary_search(&to).ok()?, rest))
            })
        });
        let mut springs = Self {
            links: links.collect(),
            places: first_places(routers.len(), &pivots(graph, routers, tree)),
            heights: vec![0.0; routers.len()],
        };
        springs.scale();
        // two at one place would stay there
        for (place, router) in springs.places.iter_mut().zip(routers) {
            let name = mix(router.0);
            let little = |bits: u64| f64::from(bits as u16) / f64::from(u16::MAX);
            place[0] += little(name);
            place[1] += little(name >> 16);
        }
        springs.relax();
        springs
    }

    /// Paths are longer than links: the places are drawn together until springs fit best.
    fn scale(&mut self) {
        let (mut product, mut square) = (0.0, 0.0);
        for &(a, b, rest) in &self.links {
            let apart = self.apart(a, b);
            product += apart * rest;
            square += apart * apart;
        }
        if square > 0.0 {
            let scale = product / square;
            self.places.iter_mut().flatten().for_each(|x| *x *= scale);
        }
    }

    fn relax(&mut self) {
        let rounds = (SPRING_MOVES / self.links.len().max(1)).min(SPRING_ROUNDS);
        for round in 0..rounds {
            let share = round as f64 / rounds as f64;
            let step = STEPS[0] + (STEPS[1] - STEPS[0]) * share;
            for n in 0..self.links.len() {
                let (a, b, rest) = self.links[n];
                self.pull(a, b, rest, step);
            }
        }
    }

    /// One spring moves both ends, as Vivaldi with heights does.
    fn pull(&mut self, a: usize, b: usize, rest: f64, step: f64) {
        let length = self.length(a, b).max(1.0);
        let share = step * (rest - length) / 2.0 / length;
        let offset = [0, 1].map(|axis| self.places[a][axis] - self.places[b][axis]);
        for (at, sign) in [(a, 1.0), (b, -1.0)] {
            for (x, offset) in self.places[at].iter_mut().zip(offset) {
                *x += sign * share * offset;
            }
            let height = self.heights[at];
            self.heights[at] = (height + share * height.max(1.0)).max(0.0);
        }
    }

    fn apart(&self, a: usize, b: usize) -> f64 {
        let [x, y] = [0, 1].map(|axis| self.places[a][axis] - self.places[b][axis]);
        // a root is the same number on every machine
        (x * x + y * y).sqrt()
    }

    fn length(&self, a: usize, b: usize) -> f64 {
        self.apart(a, b) + self.heights[a] + self.heights[b]
    }
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

        /// What the link costs: up to a step, as routers advertise it.
        fn cost(&self, a: usize, b: usize) -> u16 {
            let mut step = 10.0;
            while step < self.rtt(a, b) {
                step *= 1.5;
            }
            step as u16
        }

        /// Links of three random rings, and with the best of some others by trial.
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
        for (count, seed) in [(60, 1), (300, 2), (600, 3)] {
            let field = Field::new(count, seed);
            let graph = field.graph();
            let (mut errors, mut by_guess, mut by_path, mut nearest) = (Vec::new(), 0.0, 0.0, 0.0);
            for own in 0..60 {
                let own = OriginId(own);
                let guesses = direct_rtts(&graph, own);
                assert_eq!(guesses.len(), count - 1);
                let truth = |router: OriginId| field.rtt(own.0 as usize, router.0 as usize);
                let error = |(router, guess): &(OriginId, Duration)| {
                    (guess.as_micros() as f64 / 100.0 / truth(*router) - 1.0).abs()
                };
                errors.extend(guesses.iter().map(error));
                let tree = Tree::compute(&graph, own).unwrap();
                let is_new = |router: OriginId| graph.neighbors(own).all(|(n, _)| n != router);
                let new = || guesses.iter().filter(|(router, _)| is_new(*router));
                by_guess += truth(new().min_by_key(|(_, guess)| guess).unwrap().0);
                by_path += truth(new().min_by_key(|(r, _)| tree.distance(*r)).unwrap().0);
                let all = new().map(|(router, _)| truth(*router));
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
            assert_eq!(Vec::from_iter(guesses.iter().map(|g| g.0)), reached);
            for (router, guess) in guesses {
                let path = Tree::compute(&graph, a).unwrap().distance(router).unwrap();
                assert!(
                    guess <= Duration::from_micros(100) * path,
                    "{router} {guess:?}"
                );
            }
        }
        assert_eq!(
            direct_rtts(&Arc::new(Graph::new(0, [a], &[(b, c, 1u16)])), d),
            []
        );
    }
}
