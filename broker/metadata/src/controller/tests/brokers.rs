//! Tests of registration, producer ids and placement.

use super::*;

#[test]
fn every_life_of_a_leader_is_another_leader_epoch() {
    let mut c = Cluster::of_one();
    c.create(topic("a", 1, 1));
    let first = c
        .controller
        .image()
        .broker(1)
        .map(|b| b.epoch)
        .expect("registered");
    let second = c.register(1, 2, first);
    assert!(second > first);
    assert_eq!(c.partition("a", 0), (vec![1], vec![1], 1, 1, 1));
    // Unclean too: with one replica no other can replace it.
    c.register(1, 3, -1);
    assert_eq!(c.partition("a", 0), (vec![1], vec![1], 1, 2, 2));
    // The same incarnation again gets the same registration.
    let third = c
        .controller
        .image()
        .broker(1)
        .map(|b| b.epoch)
        .expect("registered");
    assert_eq!(c.register(1, 3, -1), third);
    assert_eq!(c.partition("a", 0), (vec![1], vec![1], 1, 2, 2));
    assert!(c.controller.image().is_active(1));
}

#[test]
fn an_unclean_life_leaves_the_isr_where_another_can_lead() {
    let mut c = Cluster::of_one();
    let two = c.register(2, 2, -1);
    assert_eq!(c.create(by_hand("a", &[(0, &[1, 2]), (1, &[2, 1])])), "a: 2 x 2");
    // After a clean shutdown, broker 2 stays in the ISR and keeps its leadership.
    let again = c.register(2, 3, two);
    assert_eq!(c.partition("a", 0), (vec![1, 2], vec![1, 2], 1, 0, 0));
    assert_eq!(c.partition("a", 1), (vec![2, 1], vec![2, 1], 2, 1, 1));
    // Unclean: the epoch is not that of the previous incarnation.
    assert!(again > two);
    c.register(2, 4, two);
    assert_eq!(c.partition("a", 0), (vec![1, 2], vec![1], 1, 0, 1));
    assert_eq!(c.partition("a", 1), (vec![2, 1], vec![1], 1, 2, 2));
}

#[test]
fn a_directory_is_one_brokers() {
    let c = Cluster::of_one();
    let registration = |broker_id, directories| Registration {
        broker_id,
        incarnation_id: id(9),
        endpoints: Vec::new(),
        rack: None,
        directories,
        moved: Vec::new(),
        previous_broker_epoch: -1,
    };
    let refusal = |r| match c
        .controller
        .decide(Instant::default(), 9, Request::RegisterBroker(r))
        .1
    {
        Reply::Registered(outcome) => outcome.expect_err("refused").to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refusal(registration(2, vec![])),
        "INVALID_REGISTRATION: No directories specified in request"
    );
    assert_eq!(
        refusal(registration(2, vec![id(1), id(1)])),
        "INVALID_REGISTRATION: Duplicate directory ID in request"
    );
    assert_eq!(
        refusal(registration(2, vec![id(201)])),
        format!(
            "INVALID_REGISTRATION: Broker 1 is already registered with directory {}",
            id(201)
        )
    );
}

#[test]
fn partitions_are_spread_over_directories() {
    let mut c = Cluster::new();
    let (a, b) = (id(201), id(202));
    let registration = |incarnation, moved| Registration {
        broker_id: 1,
        incarnation_id: id(incarnation),
        endpoints: Vec::new(),
        rack: None,
        directories: vec![a, b],
        moved,
        previous_broker_epoch: -1,
    };
    c.ask(Request::RegisterBroker(registration(1, Vec::new())));
    let directories = |c: &Cluster, name: &str| {
        let topic = c.controller.image().topics.by_name(name).expect("there").clone();
        let each = topic.partitions().map(|(_, p)| p.directory(1).expect("known"));
        each.collect::<Vec<_>>()
    };
    let more = |c: &mut Cluster, name: &str, count: i32| {
        let topic = CreatableTopic {
            name: Str::copied(name),
            num_partitions: count,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        c.random += 1;
        let random = vec![c.random.to_be_bytes()];
        c.ask(Request::CreateTopics(CreateTopics { request, random }));
        directories(c, name)
    };
    // The directory with the fewest partitions, the first of equals.
    assert_eq!(more(&mut c, "three", 3), [a, b, a]);
    assert_eq!(more(&mut c, "one", 1), [b]);
    assert_eq!(more(&mut c, "two", 2), [a, b]);
    // A failed directory gets no new partitions and keeps its own.
    c.ask(Request::DirectoriesOffline(vec![b]));
    assert_eq!(more(&mut c, "left", 2), [a, a]);
    assert_eq!(directories(&c, "three"), [a, b, a]);
    let (records, _) = c.ask(Request::DirectoriesOffline(vec![a]));
    assert_eq!(records, [], "a broker has one directory at least");
    // A new incarnation has the directories that it found.
    let three = c.controller.image().topics.by_name("three").expect("there").id;
    c.ask(Request::RegisterBroker(registration(2, vec![(three, 0, b)])));
    assert_eq!(directories(&c, "three"), [b, b, a]);
    // a: three-2, two-0 and both of left; b: three-0, three-1, one-0 and two-1.
    assert_eq!(more(&mut c, "again", 2), [a, b]);
}

#[test]
fn a_producer_id_is_handed_out_once() {
    let mut c = Cluster::of_one();
    let mut block = || match c.ask(Request::AllocateProducerIds).1 {
        Reply::ProducerIds(Ok(block)) => block,
        other => panic!("{other:?}"),
    };
    assert_eq!(block(), 0..1000);
    assert_eq!(block(), 1000..2000);
    // A new leader continues from the log (P11).
    let records = c.controller.image().to_records();
    let mut image = MetadataState::new(Image::empty("c"));
    for (offset, record) in (0..).zip(&records) {
        image.replay(offset, 1, record).expect("replayable");
    }
    c.controller = Controller::new(image.image().clone());
    assert!(
        matches!(c.ask(Request::AllocateProducerIds).1, Reply::ProducerIds(Ok(block)) if block == (2000..3000))
    );
}

#[test]
fn replicas_are_spread() {
    let mut c = Cluster::of_one();
    for broker in 2..=6 {
        c.register(broker, broker as u8, -1);
    }
    assert_eq!(c.create(topic("a", 12, 3)), "a: 12 x 3");
    let (mut leads, mut holds) = (BTreeMap::new(), BTreeMap::new());
    for index in 0..12 {
        let (replicas, isr, leader, ..) = c.partition("a", index);
        assert_eq!((isr, leader), (replicas.clone(), replicas[0]));
        let mut different = replicas.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 3, "{replicas:?}");
        *leads.entry(leader).or_insert(0) += 1;
        for id in replicas {
            *holds.entry(id).or_insert(0) += 1;
        }
    }
    assert!(leads.values().all(|n| *n == 2), "{leads:?}");
    assert!(holds.values().all(|n| *n == 6), "{holds:?}");
}

#[test]
fn a_rack_holds_no_more_of_a_partition_than_it_must() {
    let mut c = Cluster::new();
    for (broker, rack) in [(1, "x"), (2, "y"), (3, "x"), (4, "y"), (5, "z")] {
        c.register_in(Some(rack), broker, broker as u8, -1);
    }
    assert_eq!(c.create(topic("a", 30, 3)), "a: 30 x 3");
    let rack = |id: &i32| ["x", "y", "x", "y", "z"][*id as usize - 1];
    let mut leads = BTreeMap::new();
    for index in 0..30 {
        let (replicas, _, leader, ..) = c.partition("a", index);
        let mut racks: Vec<_> = replicas.iter().map(rack).collect();
        racks.sort_unstable();
        assert_eq!(racks, ["x", "y", "z"], "{replicas:?}");
        *leads.entry(leader).or_insert(0) += 1;
    }
    assert_eq!(leads.into_values().collect::<Vec<_>>(), [5, 5, 5, 5, 10]);
}
