//! Which nodes reach each other while the network is cut, and which messages arrive late, twice or never.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const NODES: [u32; 5] = [1, 2, 3, 4, 5];

type Pairs = BTreeSet<(u32, u32)>;

fn all_pairs() -> Pairs {
    let to = |from| NODES.into_iter().map(move |to| (from, to));
    NODES
        .into_iter()
        .flat_map(to)
        .filter(|(from, to)| from != to)
        .collect()
}

/// Connects all nodes with each other, cuts the network with `cut` for three seconds, and lets each end write. Returns between
/// which pairs bytes arrived, and a new connection was made, within a second. After the cut all pairs must be reached.
fn reached(cut: impl FnOnce(&mut Net, Nanos) + Send + 'static) -> (Pairs, Pairs) {
    play(move |world| async move {
        let mut listeners = Vec::new();
        for node in NODES {
            let listening = world.env(node).listen(addr_of(node, PORT)).await;
            listeners.push((node, listening.expect("a free port")));
        }
        let (arrived, connected) = (Arc::<Mutex<Pairs>>::default(), Arc::<Mutex<Pairs>>::default());
        let mut writers = Vec::new();
        for (to, listener) in &mut listeners {
            for from in NODES.into_iter().filter(|from| from != to) {
                let host = addr_of(*to, PORT).ip().to_string();
                let client = world.env(from).connect(&host, PORT).await.expect("it listens");
                let (server, _) = listener.accept().await.expect("the client");
                let ((_, writer), (mut reader, _)) = (client.split(), server.split());
                writers.push(writer);
                let (arrived, pair) = (Arc::clone(&arrived), (from, *to));
                world.env(*to).spawn("reader", async move {
                    read(&mut reader).await.expect("it arrives");
                    arrived.lock().expect("one thread").insert(pair);
                });
            }
        }
        let healed = world.exec().now() + 3 * SECOND;
        cut(&mut world.lock().net, healed);
        for writer in &mut writers {
            assert!(write(writer, "x").await);
        }
        for (from, to) in all_pairs() {
            let (env, connected) = (world.env(from), Arc::clone(&connected));
            world.env(from).spawn("connector", async move {
                let host = addr_of(to, PORT).ip().to_string();
                env.connect(&host, PORT).await.expect("it listens");
                connected.lock().expect("one thread").insert((from, to));
            });
        }
        let env = world.env(0);
        let look = || {
            let of = |pairs: &Mutex<Pairs>| pairs.lock().expect("one thread").clone();
            (of(&arrived), of(&connected))
        };
        env.sleep_until(env.now() + Duration::from_secs(1)).await;
        let response = look();
        env.sleep_until(env.now() + Duration::from_secs(3)).await;
        assert_eq!(look(), (all_pairs(), all_pairs()), "once it has healed");
        response
    })
}

/// All pairs except those that `is_cut` separates, in either direction.
fn but(is_cut: impl Fn(u32, u32) -> bool) -> Pairs {
    let gone = |(a, b): &(u32, u32)| is_cut(*a, *b) || is_cut(*b, *a);
    all_pairs().into_iter().filter(|pair| !gone(pair)).collect()
}

#[test]
fn a_partition_separates_two_sides() {
    let (arrived, connected) = reached(|net, until| net.partition(&[1, 2], &[3, 4, 5], until));
    let whole = but(|a, b| a <= 2 && b > 2);
    assert_eq!((&arrived, &connected), (&whole, &whole));
    assert_eq!(whole.len(), 2 + 6);
}

#[test]
fn a_one_way_partition_passes_the_other_direction_but_no_new_connection() {
    let (arrived, connected) = reached(|net, until| net.cut(&[1], &[2, 3, 4, 5], until));
    let one_way: Pairs = all_pairs().into_iter().filter(|(from, _)| *from != 1).collect();
    assert_eq!(arrived, one_way);
    assert_eq!(connected, but(|a, _| a == 1), "a connection takes both ways");
}

#[test]
fn a_partial_partition_separates_only_two_nodes() {
    let (arrived, connected) = reached(|net, until| net.partition(&[1], &[2], until));
    let whole = but(|a, b| (a, b) == (1, 2));
    assert_eq!((&arrived, &connected), (&whole, &whole));
    assert_eq!(whole.len(), 18);
}

#[test]
fn in_a_ring_each_node_reaches_only_its_neighbours() {
    let (arrived, connected) = reached(|net, until| net.ring(&NODES, until));
    let neighbours: Pairs = all_pairs()
        .into_iter()
        .filter(|(a, b)| matches!(a.abs_diff(*b), 1 | 4))
        .collect();
    assert_eq!((&arrived, &connected), (&neighbours, &neighbours));
    let each: BTreeMap<u32, usize> = NODES
        .into_iter()
        .map(|n| (n, neighbours.iter().filter(|(from, _)| *from == n).count()))
        .collect();
    assert!(each.values().all(|n| *n == 2), "{each:?}");
}

#[test]
fn a_request_may_arrive_after_those_of_a_later_connection() {
    let order = play(|world| async move {
        let mut listener = world
            .env(SERVER)
            .listen(addr_of(SERVER, PORT))
            .await
            .expect("a free port");
        let (env, host) = (world.env(CLIENT), addr_of(SERVER, PORT).ip().to_string());
        let order = Arc::<Mutex<Vec<String>>>::default();
        let mut senders = Vec::new();
        for text in ["old", "new"] {
            let client = env.connect(&host, PORT).await.expect("it listens");
            let (server, _) = listener.accept().await.expect("the client");
            let (mut reader, writer) = server.split();
            let (mut sent, order) = (client.split(), Arc::clone(&order));
            world.env(SERVER).spawn("server", async move {
                let _held = writer;
                let came = read(&mut reader).await.expect("it arrives");
                order.lock().expect("one thread").push(came);
            });
            let delay = Link {
                slow_until: world.exec().now() + SECOND / 10,
                slower_by: 5 * SECOND,
                ..Link::default()
            };
            if text == "old" {
                world.lock().net.links.insert((CLIENT, SERVER), delay);
            }
            assert!(write(&mut sent.1, text).await);
            if text == "new" {
                senders.push(sent);
            }
            // The client gives up the old connection and reconnects.
            env.sleep_until(env.now() + Duration::from_secs(1)).await;
        }
        env.sleep_until(env.now() + Duration::from_secs(6)).await;
        order.lock().expect("one thread").clone()
    });
    assert_eq!(order, ["new", "old"]);
}

#[test]
fn a_response_may_be_lost_after_the_request_took_effect() {
    let (response, effects) = play(|world| async move {
        let (client, server) = connected(&world).await;
        let ((mut cr, mut cw), (mut sr, mut sw)) = (client.split(), server.split());
        let effects = Arc::<Mutex<u32>>::default();
        let done = Arc::clone(&effects);
        world.env(SERVER).spawn("server", async move {
            read(&mut sr).await.expect("a request");
            *done.lock().expect("one thread") += 1;
            assert!(write(&mut sw, "done").await, "to the server it looks sent");
            std::future::pending::<()>().await;
        });
        let until = world.exec().now() + 5 * SECOND;
        world.lock().net.cut(&[SERVER], &[CLIENT], until);
        assert!(write(&mut cw, "do it").await);
        let env = world.env(0);
        env.sleep_until(env.now() + Duration::from_secs(1)).await;
        assert_eq!(world.reset_between(CLIENT, SERVER, false), 1);
        let response = read(&mut cr).await;
        env.sleep_until(env.now() + Duration::from_secs(6)).await;
        (
            response.or(read(&mut cr).await),
            *effects.lock().expect("one thread"),
        )
    });
    assert_eq!((response, effects), (None, 1));
}
