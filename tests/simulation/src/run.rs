//! A run: a world of processes made from a seed, its trouble, its peace, and what is checked then.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use afterglow_store::Error;
use afterglow_store::catalog::{self, Catalog};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Plan as AgentPlan};
use crate::ingester::Ingester;
use crate::maintainer::{Maintenance, Plan as MaintenancePlan, rest_and_verify};
use crate::met::Counts;
use crate::network::{Losses, Network};
use crate::oracle::Oracle;
use crate::process::{Chaos, Process, open, supervise};
use crate::querier::{Querier, ReadBack, check_all};
use crate::store::SimStore;
use crate::store::faults::Faults;
use crate::world::{Calm, Traced, World};

/// How long the trouble lasts at most, whatever agents have left to send.
const TROUBLE_MAX: Duration = Duration::from_secs(20 * 60);
/// How long writes may still land once nobody sends any: five minutes, and a little for clocks of whole milliseconds.
const LANDING_MAX: Duration = Duration::from_secs(310);
/// How long agents have to get rid of what is left, when nothing fails any more.
const LAST_MAX: Duration = Duration::from_secs(15 * 60);
/// How long the bucket is left alone in the end: a day is over, and what nobody named is garbage.
const NIGHT: Duration = Duration::from_secs(26 * 3_600);
/// After how many graces all garbage is deleted: what waited for a day without a collector is forgotten, and fenced off again.
const GRACES_MAX: usize = 3;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many ingesters there are.
    pub ingesters: usize,
    /// How many queriers.
    pub queriers: usize,
    /// How the bucket is maintained.
    pub maintenance: MaintenancePlan,
    /// What each agent does.
    pub agents: Vec<AgentPlan>,
    /// How the store fails.
    pub faults: Faults,
    /// What happens to processes.
    pub chaos: Chaos,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Profiles that were acknowledged.
    pub acked: usize,
    /// Acknowledgements, those of profiles sent again among them.
    pub acks: usize,
    /// Profiles that were acknowledged and dropped since.
    pub dropped: usize,
    /// Requests to the store.
    pub requests: u64,
    /// Objects at the end.
    pub objects: usize,
    /// What befell it.
    pub met: Counts,
    /// What is wrong: nothing, if all is well.
    pub wrongs: Vec<String>,
    /// What happened.
    pub traced: Traced,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(world: &World) -> Self {
        let mut chance = world.chance("plan");
        let losses = Losses { calls: *chance.choose(&[0.0, 0.05, 0.2]), answers: *chance.choose(&[0.0, 0.05, 0.2]) };
        let agents = (0..chance.number(1..5)).map(|_| AgentPlan {
            profiles: chance.number(10..60),
            every: Duration::from_millis(*chance.choose(&[100, 1_000, 5_000])),
            resends: *chance.choose(&[0.0, 0.1, 0.5]),
            losses,
        });
        let agents = agents.collect();
        Self {
            ingesters: chance.number(1..4) as usize,
            queriers: chance.number(1..3) as usize,
            agents,
            maintenance: MaintenancePlan::draw(world),
            faults: Faults::draw(&mut chance),
            chaos: Chaos::draw(&mut chance),
        }
    }
}

/// Runs a seed. `keeps_lines` keeps the text of the trace; `change` may change what the seed planned.
pub fn run(seed: u64, keeps_lines: bool, change: impl FnOnce(&mut Plan)) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime of one thread");
    // Not all that processes do can move between threads, and there is one only.
    LocalSet::new().block_on(&runtime, async {
        let world = World::new(seed, keeps_lines);
        let mut plan = Plan::draw(&world);
        change(&mut plan);
        live(seed, world, plan).await
    })
}

async fn live(seed: u64, world: World, plan: Plan) -> Report {
    world.note(format_args!("{plan:?}"));
    let objects = SimStore::new(&world);
    objects.set_faults(plan.faults.clone());
    let oracle = Oracle::new(&world, &objects, plan.maintenance.keeps);
    let options = plan.maintenance.options;
    let network = Network::new(plan.ingesters);
    let calm = Calm::default();

    let ingesters = (0..plan.ingesters).map(|port| -> Arc<dyn Process> {
        Arc::new(Ingester {
            name: format!("ingester{port}"),
            port,
            network: network.clone(),
            oracle: oracle.clone(),
            objects: objects.clone(),
        })
    });
    let queriers = (0..plan.queriers).map(|number| -> Arc<dyn Process> {
        Arc::new(Querier { name: format!("querier{number}"), oracle: oracle.clone() })
    });
    let maintainers = (0..plan.maintenance.maintainers).map(|number| -> Arc<dyn Process> {
        let name = format!("maintainer{number}");
        Arc::new(Maintenance { name, world: world.clone(), options: options.clone() })
    });
    let over = CancellationToken::new();
    let mut processes = JoinSet::new();
    for process in ingesters.chain(queriers).chain(maintainers) {
        let (world, objects, oracle) = (world.clone(), objects.clone(), oracle.clone());
        processes.spawn_local(supervise(
            process,
            world,
            objects,
            oracle,
            plan.chaos.clone(),
            calm.clone(),
            over.clone(),
        ));
    }
    processes.spawn_local(probe(world.clone(), objects.clone(), plan.faults, oracle.clone()));
    let mut agents = JoinSet::new();
    for (number, plan) in plan.agents.into_iter().enumerate() {
        let name = format!("agent{number}");
        let agent = Agent::new(name, world.clone(), network.clone(), oracle.clone(), plan);
        agents.spawn(agent.run(calm.clone()));
    }

    // Trouble, until all is sent that shall be; agents then wait for peace.
    let expected = agents.len();
    let all_wait = async {
        while oracle.waiting() < expected {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let _ = timeout(TROUBLE_MAX, all_wait).await;
    world.note(format_args!("peace"));
    objects.set_faults(Faults::none());
    calm.begin();
    let ended = timeout(LAST_MAX, async {
        while let Some(ended) = agents.join_next().await {
            if let Err(error) = ended {
                oracle.wrong(format!("an agent panicked: {error}"));
            }
        }
    });
    if ended.await.is_err() {
        oracle.wrong("agents cannot get rid of their profiles though all is well".to_owned());
    }
    // Where there is an age, all reach it under the eyes of the queriers.
    sleep(options.retention.age_max.map_or(LANDING_MAX, |age| LANDING_MAX + 2 * age)).await;
    over.cancel();
    while processes.join_next().await.is_some() {}
    let store = open(&world, &objects, &world.clock(), "judge");
    let mut read = ReadBack::default();
    let mut look = async || {
        let catalog = Catalog::new(store.clone(), catalog::Options::default());
        check_all("judge", &catalog, &oracle, &mut read).await
    };
    look().await;
    let began = world.now();
    rest_and_verify(&store, &options, &oracle, &world, true).await;
    oracle.check_gone("judge", &look().await, began);
    // What is removed is deleted a grace later, and what nobody named is fenced off first.
    sleep(NIGHT).await;
    let began = world.now();
    rest_and_verify(&store, &options, &oracle, &world, false).await;
    oracle.check_gone("judge", &look().await, began);
    let mut left = None;
    for _ in 0..GRACES_MAX {
        sleep(options.collection.grace + LANDING_MAX).await;
        let began = world.now();
        let collection = rest_and_verify(&store, &options, &oracle, &world, false).await.collection;
        oracle.check_gone("judge", &look().await, began);
        left = (collection.waiting + collection.fenced > 0).then_some(collection);
        if left.is_none() {
            break;
        }
    }
    if let Some(left) = left {
        oracle.wrong(format!("garbage is left: {left:?}"));
    }

    Report {
        seed,
        acked: oracle.acked_profiles(),
        acks: oracle.acks(),
        dropped: oracle.dropped(),
        requests: objects.requests(),
        objects: objects.objects(),
        met: world.met(),
        wrongs: oracle.wrongs(),
        traced: world.traced(),
    }
}

/// Probes the store as programs do when they start; and beside it one that ignores the condition of every create, as bad clones of S3 do
/// (F7), and fails as this one does. Nobody may start there, and nobody may be kept from starting here for that reason.
async fn probe(world: World, objects: SimStore, faults: Faults, oracle: Oracle) {
    let clone = SimStore::named(&world, "clone");
    // A conflict without cause is just what it is found out by not having.
    let honest = Faults { conflict: 0.0, own_conflict: 0.0, conflict_before: 0.0, ..faults };
    clone.set_faults(Faults { ignore_condition: 1.0, ..honest });
    for (objects, user, is_clone) in [(clone, "starter of the clone", true), (objects, "starter", false)] {
        let probed = open(&world, &objects, &world.clock(), user).probe().await;
        match probed {
            Ok(_) if is_clone => oracle.wrong("a store that ignores conditions passes the probe".to_owned()),
            Ok(_) => world.note(format_args!("{user} starts")),
            Err(Error::ConditionalWrites { .. }) if !is_clone => {
                oracle.wrong("the probe finds that conditions are ignored, which they are not".to_owned());
            }
            Err(error) => world.note(format_args!("{user} does not start: {error}")),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, acked, acks, dropped, requests, objects, wrongs, traced, .. } = self;
        write!(
            f,
            "seed {seed}: {acked} profiles acked, {acks} acks, {dropped} dropped, {requests} requests, {objects} objects, {} events, trace {:016x}",
            traced.events, traced.hash
        )?;
        wrongs.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}
