//! Tests of creating and deleting topics and adding partitions.

use super::*;

#[test]
fn topics_are_created_or_refused_in_kafkas_words() {
    let mut c = Cluster::of_one();
    let long = "x".repeat(250);
    let table: Vec<(CreatableTopic, &str)> = vec![
        (topic("a", 3, 1), "a: 3 x 1"),
        (
            topic("a", 3, 1),
            "a: TOPIC_ALREADY_EXISTS: Topic 'a' already exists.",
        ),
        (topic("defaults", -1, -1), "defaults: 1 x 1"),
        (
            topic("no", 0, 1),
            "no: INVALID_PARTITIONS: Number of partitions was set to an invalid non-positive value.",
        ),
        (
            topic("no", -2, 1),
            "no: INVALID_PARTITIONS: Number of partitions was set to an invalid non-positive value.",
        ),
        (
            topic("no", 1, 0),
            "no: INVALID_REPLICATION_FACTOR: Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            topic("no", 1, 3),
            "no: INVALID_REPLICATION_FACTOR: Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
        ),
        (
            topic("no", 10_001, 1),
            "no: POLICY_VIOLATION: Excessively large number of partitions per request.",
        ),
        (
            topic("", 1, 1),
            ": INVALID_TOPIC_EXCEPTION: Topic name is invalid: the empty string is not allowed",
        ),
        (
            topic("..", 1, 1),
            "..: INVALID_TOPIC_EXCEPTION: Topic name is invalid: '..' is not allowed",
        ),
        (
            topic("a/b", 1, 1),
            "a/b: INVALID_TOPIC_EXCEPTION: Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (topic("my.topic", 1, 1), "my.topic: 1 x 1"),
        (
            topic("my_topic", 1, 1),
            "my_topic: INVALID_TOPIC_EXCEPTION: Topic 'my_topic' collides with existing topic: my.topic",
        ),
        (
            topic("__cluster_metadata", 1, 1),
            "__cluster_metadata: INVALID_REQUEST: Creation of internal topic __cluster_metadata is prohibited.",
        ),
        (by_hand("hand", &[(1, &[1]), (0, &[1])]), "hand: 2 x 1"),
        (
            by_hand("no", &[(0, &[1]), (2, &[1])]),
            "no: INVALID_REPLICA_ASSIGNMENT: partitions should be a consecutive 0-based integer sequence",
        ),
        (
            by_hand("no", &[(0, &[1]), (0, &[1])]),
            "no: INVALID_REPLICA_ASSIGNMENT: Found multiple manual partition assignments for partition 0",
        ),
        (
            by_hand("no", &[(0, &[7])]),
            "no: INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes broker 7, but no such broker is registered.",
        ),
        (
            by_hand("no", &[(0, &[1, 1])]),
            "no: INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            by_hand("no", &[(0, &[])]),
            "no: INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes an empty replica list.",
        ),
        (
            CreatableTopic {
                num_partitions: 2,
                ..by_hand("no", &[(0, &[1])])
            },
            "no: INVALID_REQUEST: A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            CreatableTopic {
                replication_factor: 1,
                ..by_hand("no", &[(0, &[1])])
            },
            "no: INVALID_REQUEST: A manual partition assignment was specified, but replication factor was not set to -1.",
        ),
        (
            with_config(topic("cfg", 1, 1), "retention.ms", Some("-1")),
            "cfg: 1 x 1",
        ),
        (
            with_config(topic("no", 1, 1), "retention.ms", Some("-2")),
            "no: INVALID_CONFIG: Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            with_config(topic("no", 1, 1), "nonsense", Some("1")),
            "no: INVALID_CONFIG: Unknown topic config name: nonsense",
        ),
        (
            with_config(topic("no", 1, 1), "retention.ms", None),
            "no: INVALID_CONFIG: Null value not supported for topic configs: retention.ms",
        ),
    ];
    for (topic, expected) in table {
        assert_eq!(c.create(topic), expected);
    }
    assert!(
        c.create(topic(&long, 1, 1))
            .contains("is longer than the max allowed length 249")
    );
    assert!(c.controller.image().topics.by_name("no").is_none());
    assert_eq!(c.partition("a", 2), (vec![1], vec![1], 1, 0, 0));
    let own = c.controller.image().topic_configs("cfg").expect("configured");
    assert_eq!(own.get("retention.ms").map(|v| v.as_str()), Some("-1"));
}

#[test]
fn one_request_of_many_topics() {
    let mut c = Cluster::of_one();
    let topics = vec![
        topic("a", 1, 1),
        topic("twice", 1, 1),
        topic("b", 1, 9),
        topic("twice", 2, 1),
        topic("x.y", 1, 1),
        topic("x_y", 1, 1),
    ];
    assert_eq!(
        c.create_all(topics.clone(), true),
        c.create_all(topics, false),
        "to validate tells the same"
    );
    let names: Vec<String> = c
        .controller
        .image()
        .topics
        .iter()
        .map(|t| t.name.to_string())
        .collect();
    // As in Kafka, names collide only with existing topics, not with each other.
    assert_eq!(names, ["a", "x.y", "x_y"]);
}

#[test]
fn validate_only_writes_nothing() {
    let mut c = Cluster::of_one();
    let before = c.controller.clone();
    assert_eq!(c.create_all(vec![topic("a", 1, 1)], true), ["a: 1 x 1"]);
    assert_eq!(c.controller, before);
}

#[test]
fn a_created_topic_tells_all_its_values() {
    let mut c = Cluster::of_one();
    let request = CreateTopicsRequest {
        topics: vec![with_config(topic("a", 1, 1), "retention.ms", Some("7"))],
        ..CreateTopicsRequest::default()
    };
    let (_, reply) = c.ask(Request::CreateTopics(CreateTopics {
        request,
        random: vec![[1; 16]],
    }));
    let Reply::CreateTopics(response) = reply else {
        panic!("{reply:?}")
    };
    let configs = response.topics[0].configs.as_ref().expect("told");
    let of = |name: &str| {
        configs
            .iter()
            .find(|c| c.name == *name)
            .map(|c| (c.value.as_ref().map(|v| v.to_string()), c.config_source))
    };
    assert_eq!(of("retention.ms"), Some((Some("7".to_owned()), 1)));
    assert_eq!(of("flush.messages"), Some((Some("1".to_owned()), 5)));
    assert_eq!(configs.len(), crate::config::TOPIC_KEYS.len());
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut c = Cluster::of_one();
    c.create_all(["a", "b", "d", "e"].map(|name| topic(name, 1, 1)).to_vec(), false);
    let id_of = |c: &Cluster, name| {
        c.controller
            .image()
            .topics
            .by_name(name)
            .map(|t| t.id)
            .expect("there")
    };
    let (b, d, e) = (id_of(&c, "b"), id_of(&c, "d"), id_of(&c, "e"));
    let state = |name: Option<&'static str>, topic_id| DeleteTopicState {
        name: name.map(Str::from),
        topic_id,
        ..DeleteTopicState::default()
    };
    let request = DeleteTopicsRequest {
        topic_names: ["a", "d", "d", "zzz"].map(Str::from).to_vec(),
        topics: vec![
            state(None, b),
            state(None, Uuid::ZERO),
            state(Some("a"), b),
            state(None, id(99)),
            state(None, e),
            state(Some("e"), Uuid::ZERO),
            state(None, Uuid::ZERO),
            state(None, d),
        ],
        ..DeleteTopicsRequest::default()
    };
    let (records, reply) = c.ask(Request::DeleteTopics(request));
    let Reply::DeleteTopics(response) = reply else {
        panic!("{reply:?}")
    };
    let lines: Vec<String> = response
        .responses
        .iter()
        .map(|r| {
            format!(
                "{} {}",
                r.name.as_ref().map_or("-", |n| n.as_str()),
                shown(r.error_code, &r.error_message)
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "a NONE",
            "d INVALID_REQUEST: Duplicate topic name.",
            "zzz UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition.",
            "b NONE",
            "- INVALID_REQUEST: Neither topic name nor id were specified.",
            "a INVALID_REQUEST: You may not specify both topic name and topic id.",
            "- UNKNOWN_TOPIC_ID: This server does not host this topic ID.",
            "e INVALID_REQUEST: The provided topic name maps to an ID that was already supplied.",
            "- INVALID_REQUEST: Neither topic name nor id were specified.",
            "d NONE",
        ]
    );
    assert_eq!(records.len(), 3);
    let left: Vec<String> = c
        .controller
        .image()
        .topics
        .iter()
        .map(|t| t.name.to_string())
        .collect();
    assert_eq!(left, ["e"]);
    // A recreated topic of the same name has another id (M2).
    assert_eq!(c.create(topic("b", 1, 1)), "b: 1 x 1");
    assert_ne!(id_of(&c, "b"), b);
}

#[test]
fn partitions_are_added() {
    let mut c = Cluster::of_one();
    c.create(topic("a", 2, 1));
    let mut ask = |count, assignments: Option<&[&[i32]]>| {
        let assignments = assignments.map(|all| {
            let one = |ids: &&[i32]| CreatePartitionsAssignment {
                broker_ids: ids.to_vec(),
                ..CreatePartitionsAssignment::default()
            };
            all.iter().map(one).collect()
        });
        let topic = CreatePartitionsTopic {
            name: "a".into(),
            count,
            assignments,
            ..CreatePartitionsTopic::default()
        };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            ..CreatePartitionsRequest::default()
        };
        match c.ask(Request::CreatePartitions(request)).1 {
            Reply::CreatePartitions(r) => shown(r.results[0].error_code, &r.results[0].error_message),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        ask(2, None),
        "INVALID_PARTITIONS: Topic already has 2 partition(s)."
    );
    assert_eq!(
        ask(1, None),
        "INVALID_PARTITIONS: The topic a currently has 2 partition(s); 1 would not be an increase."
    );
    assert_eq!(
        ask(-5, None),
        "INVALID_PARTITIONS: The topic a currently has 2 partition(s); -5 would not be an increase."
    );
    assert_eq!(
        ask(i32::MAX, None),
        "POLICY_VIOLATION: Excessively large number of partitions per request."
    );
    assert_eq!(
        ask(4, Some(&[&[1]])),
        "INVALID_REPLICA_ASSIGNMENT: Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."
    );
    assert_eq!(
        ask(3, Some(&[&[9]])),
        "INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes broker 9, but no such broker is registered."
    );
    assert_eq!(ask(3, Some(&[&[1]])), "NONE");
    assert_eq!(ask(5, None), "NONE");
    assert_eq!(c.partition("a", 4), (vec![1], vec![1], 1, 0, 0));
}

#[test]
fn a_request_has_its_limits() {
    let mut c = Cluster::of_one();
    let refusal = "POLICY_VIOLATION: Unable to perform excessively large batch operation.";
    // With the topic's own record there is one record too many.
    assert_eq!(c.create(topic("whole", 10_000, 1)), format!("whole: {refusal}"));
    let told = c.create_all(vec![topic("a", 6000, 1), topic("b", 3998, 1)], false);
    assert_eq!(told, ["a: 6000 x 1", "b: 3998 x 1"]);
    let wide = |n: usize| {
        let ids = vec![1; n];
        let assignments = CreatableReplicaAssignment {
            broker_ids: ids,
            ..CreatableReplicaAssignment::default()
        };
        CreatableTopic {
            assignments: vec![assignments],
            ..topic("wide", -1, -1)
        }
    };
    assert!(
        c.create(wide(1_000_000))
            .contains("includes the broker 1 more than once")
    );
}
