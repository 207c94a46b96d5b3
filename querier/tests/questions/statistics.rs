//! How shares spread over instances and time.

use afterglow_proto::v1;

use crate::world::{NOW_NANOS, SECOND, Sent, World, small};

const PATH: &str = "/api/v1/statistics";

async fn ask(world: &World, asked: &[(&str, &str)]) -> v1::StatisticsResponse {
    serde_json::from_value(world.json(PATH, asked).await).unwrap()
}

/// A profile of an instance in which `work` itself uses so much of a thousand.
fn of(id: u128, instance: &str, seconds: i64, work: i64) -> Sent {
    let labels = [("service", "api"), ("instance", instance)];
    let stacks: [(&[&str], &[i64]); 3] =
        [(&["main", "work"], &[work]), (&["main", "work", "parse"], &[100]), (&["main", "idle"], &[900 - work])];
    small(id, "cpu", &labels, NOW_NANOS - seconds * SECOND, &[("cpu", "nanoseconds")], &stacks)
}

/// Twelve instances with two profiles each, of which one works three times as much as the others.
async fn put_fleet(world: &World) {
    let fleet: Vec<Sent> = (0..24i64)
        .map(|id| {
            let instance = id % 12;
            let work = if instance == 7 { 300 } else { 95 + instance % 3 * 5 };
            of(id as u128 + 1, &format!("i{instance:02}"), 100 - id, work)
        })
        .collect();
    world.put(&fleet[..10]).await;
    world.put(&fleet[10..]).await;
}

/// Goal: the numbers are those of the shares of each instance, whatever blocks they lie in, and the odd instance is found and named.
#[tokio::test]
async fn an_odd_instance_is_found() {
    let world = World::with(&["--query.max-list-age=0s"]).await;
    put_fleet(&world).await;
    let before = ask(&world, &[("by", "instance")]).await;
    world.compact().await;
    let answer = ask(&world, &[("by", "instance")]).await;
    assert_eq!(answer, before);

    assert_eq!((answer.groups.len(), answer.profiles), (12, 24));
    let function = |name: &str| answer.functions.iter().find(|of| of.name == name).unwrap();
    let names: Vec<_> = answer.functions.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(names, ["idle", "work", "parse", "main"], "by the mean of what they use themselves");
    let work = function("work");
    let (own, total) = (work.self_.as_ref().unwrap(), work.total.as_ref().unwrap());
    let mean = (4.0 * 0.095 + 3.0 * 0.1 + 4.0 * 0.105 + 0.3) / 12.0;
    assert!((own.mean - mean).abs() < 1e-9 && (total.mean - mean - 0.1).abs() < 1e-9, "{own:?}");
    assert_eq!((own.min, own.p50, own.max), (0.095, 0.1, 0.3));
    let odd: Vec<_> = own.outliers.iter().map(|of| &answer.groups[of.group as usize].labels["instance"]).collect();
    assert_eq!(odd, ["i07"], "{own:?}");
    assert_eq!((own.outliers[0].share, answer.groups[7].total), (0.3, 2_000));
    assert!(own.outliers[0].score > 3.5);
    let parse = function("parse").self_.as_ref().unwrap();
    assert!(parse.deviation < 1e-12 && parse.outliers.is_empty(), "{parse:?}");
}

/// Goal: without labels the groups are steps of time; with both they are steps of each; and what is not wanted is left out.
#[tokio::test]
async fn groups_are_steps_of_time_where_that_is_asked_for() {
    let world = World::new().await;
    put_fleet(&world).await;
    let steps = ask(&world, &[("step", "4s")]).await;
    assert_eq!(steps.step.unwrap().seconds, 4);
    assert!(
        (6..=7).contains(&steps.groups.len()) && steps.groups.iter().all(|group| group.time.is_some()),
        "{steps:?}"
    );
    assert_eq!(steps.groups.iter().map(|group| group.profiles).sum::<u64>(), 24);
    assert!(steps.groups.is_sorted_by_key(|group| group.time.as_ref().map(|time| time.seconds)));
    assert_eq!(ask(&world, &[]).await.groups.len(), 2, "a round step of the hour");
    assert_eq!(ask(&world, &[("step", "1s"), ("by", "instance")]).await.groups.len(), 24);

    let some = ask(&world, &[("by", "instance"), ("function", "^w"), ("focus", "parse"), ("value", "total")]).await;
    assert_eq!(some.functions.len(), 1);
    assert_eq!(some.functions[0].total.as_ref().unwrap().min, 1.0, "of the samples that the filter leaves");
    let few = ask(&world, &[("by", "instance"), ("limit", "1"), ("min_share", "0.2")]).await;
    assert_eq!((few.functions.len(), few.functions_truncated), (1, 2), "parse never has a fifth");
    let one = ask(&world, &[("by", "service")]).await;
    assert_eq!(one.warnings, ["with 1 groups of the 5 that it takes, no group is told to be odd"]);
}

/// Goal: an instance that uses fifty times as much, of the same in the same parts, is odd by its amount and not by any share; how many profiles
/// an instance has sent does not count.
#[tokio::test]
async fn an_instance_that_is_as_the_others_and_larger_is_odd() {
    let world = World::new().await;
    let fleet = (0..24i64).map(|id| {
        let instance = id % 8;
        let factor = if instance == 7 { 50 } else { 1 };
        let stacks: [(&[&str], &[i64]); 2] =
            [(&["main", "work"], &[factor * (300 + instance)]), (&["main", "idle"], &[factor * 700])];
        let labels = [("service", "api"), ("instance", &*format!("i{instance}"))];
        small(id as u128 + 1, "cpu", &labels, NOW_NANOS - (100 - id) * SECOND, &[("cpu", "nanoseconds")], &stacks)
    });
    // The first has sent three times as many as others.
    let again = (100..106i64).map(|id| {
        let stacks: [(&[&str], &[i64]); 2] = [(&["main", "work"], &[300]), (&["main", "idle"], &[700])];
        let labels = [("service", "api"), ("instance", "i0")];
        small(id as u128, "cpu", &labels, NOW_NANOS - 50 * SECOND, &[("cpu", "nanoseconds")], &stacks)
    });
    world.put(&fleet.chain(again).collect::<Vec<_>>()).await;
    let answer = ask(&world, &[("by", "instance")]).await;
    let odd = |spread: &Option<v1::Spread>| -> Vec<(String, f64, f64)> {
        let of = |of: &v1::Outlier| (answer.groups[of.group as usize].labels["instance"].clone(), of.share, of.amount);
        spread.as_ref().unwrap().outliers.iter().map(of).collect()
    };
    let amount = answer.amount.as_ref().unwrap();
    assert_eq!(odd(&answer.amount), [("i7".to_owned(), 0.0, 50_350.0)]);
    assert_eq!((amount.min, amount.p50, amount.max), (1_000.0, 1_003.5, 50_350.0));
    assert!(amount.outliers[0].score > 3.5);
    assert!((amount.mean - (7_021.0 + 50_350.0) / 8.0).abs() < 1e-6, "{amount:?}");
    let work = answer.functions.iter().find(|of| of.name == "work").unwrap();
    assert_eq!((odd(&work.self_), odd(&work.total)), (Vec::new(), Vec::new()));
    assert_eq!(odd(&work.self_amount), [("i7".to_owned(), 0.0, 15_350.0)]);
    assert_eq!(odd(&work.total_amount), odd(&work.self_amount));
    let own = work.self_amount.as_ref().unwrap();
    assert!((own.p50 - 303.5).abs() < 1e-6 && own.deviation > 1_000.0, "{own:?}");
    assert_eq!(answer.warnings, [""; 0]);
}

/// Goal: no share is of a group in which something counts as less than nothing, or in which nothing is; which those are is said.
#[tokio::test]
async fn groups_without_shares_are_left_out_and_named() {
    let world = World::new().await;
    put_fleet(&world).await;
    let odd = |id, instance: &str, values: [i64; 2]| {
        let labels = [("service", "api"), ("instance", instance)];
        let stacks: [(&[&str], &[i64]); 2] = [(&["main", "work"], &[values[0]]), (&["main", "idle"], &[values[1]])];
        small(id, "cpu", &labels, NOW_NANOS - 50 * SECOND, &[("cpu", "nanoseconds")], &stacks)
    };
    world.put(&[odd(101, "n1", [501, -500]), odd(102, "n2", [-3, -4]), odd(103, "z", [0, 0])]).await;
    let answer = ask(&world, &[("by", "instance")]).await;
    assert_eq!((answer.groups.len(), answer.profiles), (12, 27));
    assert_eq!(
        answer.warnings,
        [
            "1 groups of 1 profiles have no samples, and so no shares: {instance=\"z\"}",
            "2 groups of 2 profiles have negative values, and so no shares: {instance=\"n1\"}, {instance=\"n2\"}",
        ]
    );
    let spreads = answer.functions.iter().flat_map(|of| [&of.self_, &of.total]).flatten();
    assert!(spreads.into_iter().all(|of| of.min >= 0.0 && of.max <= 1.0), "{answer:?}");
}

/// Goal: what cannot be answered says what would do.
#[tokio::test]
async fn refusals_name_the_limit() {
    let world = World::new().await;
    put_fleet(&world).await;
    for (asked, expected) in [
        (("min_share", "2"), "400 INVALID_ARGUMENT min_share 2 is not between 0 and 1"),
        (("limit", "10001"), "400 INVALID_ARGUMENT limit 10001 exceeds the 10000 functions of an answer"),
        (("value", "own"), "400 INVALID_ARGUMENT parameter \"value\": \"own\" is not total or self"),
    ] {
        assert_eq!(world.refusal(PATH, &[asked]).await, expected);
    }
    let many = world.refusal(PATH, &[("by", "instance"), ("step", "1ms")]).await;
    assert!(many.contains("steps of 1ms make 3600000 points"), "{many}");
}
