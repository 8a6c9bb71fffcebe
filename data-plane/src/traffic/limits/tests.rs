use super::*;

fn limits() -> Limits {
    Limits {
        max_connections: None,
        max_connections_per_client: Some(2),
        new_connections_per_second: None,
        new_per_client_per_second: None,
        bytes_per_second: None,
        bytes_per_second_per_client: None,
        bytes_per_second_per_connection: None,
        packets_per_second: None,
        packets_per_second_per_client: None,
        client_prefix: ClientPrefix { v4: 24, v6: 64 },
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn known(clients: &Clients) -> usize {
    clients.shards.iter().map(|shard| shard.lock().unwrap().clients.len()).sum()
}

#[test]
fn places_of_a_client_are_exact_and_leave_nothing_behind() {
    let clients = Arc::new(Clients::new(limits().client_prefix));
    let admit = |client: &str| clients.admit(ip(client), 5_000, &limits());
    let (first, second) = (admit("10.0.0.1").ok().unwrap(), admit("10.0.0.99").ok().unwrap());
    assert_eq!(admit("::ffff:10.0.0.3").err(), Some(EndReason::ClientFull), "one network is one client");
    let other = admit("10.0.1.1").ok().unwrap();
    drop(first);
    let third = admit("10.0.0.3").ok().unwrap();
    assert_eq!(known(&clients), 2);
    drop((second, third, other));
    assert_eq!(known(&clients), 0);
}

#[test]
fn clients_are_remembered_while_their_rate_says_something_and_in_bounded_number() {
    let limits = Limits { new_per_client_per_second: Some(1), ..limits() };
    let clients = Arc::new(Clients::new(limits.client_prefix));
    let admit = |client: IpAddr, now| clients.admit(client, now, &limits).map(drop);
    assert_eq!(admit(ip("10.0.0.1"), 5_000), Ok(()));
    assert_eq!(admit(ip("10.0.0.1"), 5_500), Err(EndReason::ClientRate));
    assert_eq!(admit(ip("10.0.0.1"), 6_000), Ok(()));
    for n in 0..200_000u32 {
        let client = IpAddr::V4((0x0B00_0000 + (n << 8)).into());
        let _ = admit(client, 6_000);
    }
    assert!(known(&clients) <= SHARDS * (IDLE_CLIENTS + 2), "{}", known(&clients));
    for n in 0..1_000u32 {
        let _ = admit(IpAddr::V4((0x0C00_0000 + (n << 8)).into()), 60_000);
    }
    assert!(known(&clients) <= 1_000, "those of a minute ago have left: {}", known(&clients));
}

/// The states of two rates do not compare: a client would have been locked out for as long as the node runs.
#[test]
fn a_lower_rate_starts_anew() {
    let with = |per_second| Limits { new_per_client_per_second: Some(per_second), ..limits() };
    let clients = Arc::new(Clients::new(limits().client_prefix));
    let day = 24 * 3_600_000;
    assert!(clients.admit(ip("10.0.0.1"), day, &with(1_000)).is_ok());
    assert!(clients.admit(ip("10.0.0.1"), day, &with(10)).is_ok());
    let _ = clients.admit(ip("10.0.1.1"), day + 60_000, &with(10));
    clients.shard(ip("10.0.0.0")).sweep(day + 120_000, &with(10));
    assert!(!clients.shard(ip("10.0.0.0")).clients.contains_key(&ip("10.0.0.0")));
}

/// A thousand turns of any size: what went through is what the rate allows, debts included.
#[test]
fn what_is_not_used_goes_back_and_what_was_too_much_is_paid() {
    let bucket = Bucket::new(byte_rate(10_000));
    let (mut total, mut now) = (0, 10_000);
    for turn in 0..1_000u64 {
        now += 10;
        let taken = bucket.take(TURN, now);
        if taken > 0 {
            let moved = match turn % 3 {
                0 => 0,
                1 => taken / 2,
                _ => taken + 700,
            };
            bucket.settle(taken, moved);
            total += moved;
        }
    }
    let worth = 10 * 10_000;
    assert!((worth - 3_000..=worth + 4_000).contains(&total), "{total}");
}
