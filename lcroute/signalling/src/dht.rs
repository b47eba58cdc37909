//! A DHT, by a `lcroute-reach` of this program's own: it alone reads what nodes of the DHT send.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixStream as UnixSocket;

use librecast::reach::{FromReach, Key, Plan, ToReach};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::reach::Lines;

/// Name of the program.
pub const PROGRAM: &str = "lcroute-reach";

/// The program, as long as it runs.
#[derive(Debug)]
pub struct Dht {
    plan: watch::Sender<Option<Plan>>,
    task: JoinHandle<()>,
}

impl Drop for Dht {
    fn drop(&mut self) {
        // it leaves the DHT when the connection ends
        self.task.abort();
    }
}

impl Dht {
    /// Speaks with the program, which has the other end; its lines go to `told`. To be called within
    /// a tokio runtime.
    pub fn start(stream: UnixSocket, told: mpsc::Sender<FromReach>) -> io::Result<Self> {
        let stream = UnixStream::from_std(stream)?;
        let (plan, plans) = watch::channel(None);
        let task = tokio::spawn(async move {
            if let Err(e) = converse(stream, plans, &told).await {
                tracing::warn!("{PROGRAM}: {e}");
            }
        });
        Ok(Self { plan, task })
    }

    /// Returns whether the program has not ended.
    #[must_use]
    pub fn runs(&self) -> bool {
        !self.task.is_finished()
    }

    /// Sets what it holds and looks up.
    pub fn set(&self, plan: Plan) {
        self.plan.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&plan);
            *known = Some(plan);
            is_new
        });
    }
}

async fn converse(
    stream: UnixStream,
    mut plans: watch::Receiver<Option<Plan>>,
    told: &mpsc::Sender<FromReach>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = Lines::new(read);
    let mut asked: BTreeSet<Key> = BTreeSet::new();
    loop {
        tokio::select! {
            line = lines.next() => {
                let line = line?;
                if line.is_empty() {
                    return Ok(());
                }
                let said: FromReach = serde_json::from_slice(&line)?;
                let is_asked = match &said {
                    FromReach::Seen { key, .. } => asked.contains(key),
                    FromReach::State(_) => true,
                    _ => false,
                };
                if is_asked && told.send(said).await.is_err() {
                    return Ok(());
                }
            }
            changed = plans.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let plan = plans.borrow_and_update().clone();
                let keys = plan.iter().flat_map(|plan| plan.seek.iter().chain(&plan.watch));
                asked = keys.copied().collect();
                let mut text = serde_json::to_vec(&ToReach::Plan(plan))?;
                text.push(b'\n');
                write.write_all(&text).await?;
            }
        }
    }
}
