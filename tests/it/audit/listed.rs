//! Finding events again, and forgetting them in time.

use std::collections::HashSet;
use std::net::IpAddr;

use keyward::jobs;
use keyward::protocol::ids::{ClientId, UserId};
use keyward::protocol::time::{Span, Timestamp};
use keyward::store::events::{EventKind, Filter, ListedEvent};
use tokio::sync::watch;

use crate::on_both_databases;
use crate::support::audit::an_operator;
use crate::support::process::wait_for;
use crate::support::{Backend, Provider};

const START: Timestamp = Timestamp(1_700_000_000_000);

async fn ids(provider: &Provider, filter: &Filter, limit: i64) -> Vec<String> {
    let events = provider.app.store.events(filter, limit).await.expect("events");
    events.into_iter().map(|event| event.id).collect()
}

/// Forty events of two people, two apps and two places, two of each moment; the newest first.
async fn write_forty(provider: &Provider) -> Vec<ListedEvent> {
    let operator = an_operator();
    for n in 0..40_i64 {
        let kind =
            [EventKind::SignedIn, EventKind::SignInFailed, EventKind::ConsentGiven][usize::try_from(n % 3).unwrap()];
        let event = operator.event(kind, START + Span::from_secs(n / 2)).with("n", n);
        let event = event.of_user(&UserId::new(if n % 2 == 0 { "u-even" } else { "u-odd" }));
        let event = if n % 5 == 0 { event.of_client(&ClientId::new("app-5")) } else { event };
        let place: IpAddr = if n % 4 == 0 { "192.0.2.4" } else { "2001:db8::1" }.parse().expect("an address");
        provider.app.store.record_event(event.from(Some(place))).await.expect("written");
    }
    let all = Filter { until: Some(START + Span::hours(1)), ..Filter::default() };
    let all = provider.app.store.events(&all, 100).await.expect("events");
    assert_eq!(all.len(), 40);
    all
}

on_both_databases! {
    async fn conditions_narrow_each_other(provider: Provider) {
        let all = write_forty(&provider).await;
        let n = |event: &ListedEvent| event.detail["n"].as_i64().expect("a number");
        assert!(all.is_sorted_by(|one, other| (one.at, &one.id) > (other.at, &other.id)), "the newest first");
        let until = Some(START + Span::hours(1));
        let even = Some(UserId::new("u-even"));
        let app = Some(ClientId::new("app-5"));
        let address = Some("192.0.2.4".parse().expect("an address"));
        type Holds = fn(i64) -> bool;
        let filters: [(Filter, Holds); 9] = [
            (Filter { until, ..Filter::default() }, |_| true),
            (Filter { until, user_id: even.clone(), ..Filter::default() }, |n| n % 2 == 0),
            (Filter { until, client_id: app.clone(), ..Filter::default() }, |n| n % 5 == 0),
            (Filter { until, kinds: vec![EventKind::SignedIn], ..Filter::default() }, |n| n % 3 == 0),
            (
                Filter { until, kinds: vec![EventKind::SignedIn, EventKind::ConsentGiven], ..Filter::default() },
                |n| n % 3 != 1,
            ),
            (Filter { until, address, ..Filter::default() }, |n| n % 4 == 0),
            (Filter { until, since: Some(START + Span::from_secs(10)), ..Filter::default() }, |n| n >= 20),
            (Filter { until: Some(START + Span::from_secs(10)), ..Filter::default() }, |n| n < 20),
            (
                Filter { until, user_id: even, client_id: app, address, kinds: vec![EventKind::SignedIn], ..Filter::default() },
                |n| n % 60 == 0,
            ),
        ];
        for (filter, holds) in filters {
            let expected: Vec<&String> = all.iter().filter(|event| holds(n(event))).map(|event| &event.id).collect();
            assert_eq!(ids(&provider, &filter, 100).await.iter().collect::<Vec<_>>(), expected, "{filter:?}");
            assert!(!expected.is_empty());
        }
        let nobody = Filter { user_id: Some(UserId::new("nobody")), ..Filter::default() };
        assert!(ids(&provider, &nobody, 100).await.is_empty());
    }

    async fn pages_follow_each_other_without_a_gap_and_without_a_repetition(provider: Provider) {
        let all = write_forty(&provider).await;
        let mut filter = Filter { until: Some(START + Span::hours(1)), ..Filter::default() };
        let mut seen = Vec::new();
        loop {
            let page = ids(&provider, &filter, 7).await;
            let Some(last) = page.last() else { break };
            filter.before = provider.app.store.event_position(last).await.expect("an answer");
            assert!(filter.before.is_some());
            seen.extend(page);
        }
        assert_eq!(seen, all.into_iter().map(|event| event.id).collect::<Vec<_>>());
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 40);
        assert!(provider.app.store.event_position("nothing").await.expect("an answer").is_none());
    }

    /// During a roll-out, or after going back.
    async fn a_kind_of_a_newer_release_is_shown_as_it_is(provider: Provider) {
        use sqlx::Connection as _;
        let mut conn = provider.connection().await;
        let sql = "INSERT INTO events (id, at, kind, detail) VALUES ('later', 5, 'from_the_future', '{\"by\":\"robot\"}')";
        sqlx::query(sql).execute(&mut conn).await.expect("written");
        conn.close().await.expect("closed");
        let oldest = Filter { until: Some(Timestamp(10)), ..Filter::default() };
        let events = provider.app.store.events(&oldest, 10).await.expect("events");
        assert_eq!((events[0].kind.as_str(), &events[0].detail["by"]), ("from_the_future", &"robot".into()));
    }
}

async fn events_go_when_their_time_is_over(backend: Backend) {
    let provider = Provider::start_with(backend, "https://id.test", "[events]\nretention = \"2d\"\n").await;
    let now = provider.app.now();
    let at = |span: Span| an_operator().event(EventKind::UserChanged, now - span);
    let (old, young) = (at(Span::days(2) + Span::minutes(1)), at(Span::days(2) - Span::minutes(10)));
    let (old_id, young_id) = (old.id.clone(), young.id.clone());
    for event in [old, young] {
        provider.app.store.record_event(event).await.expect("written");
    }
    // What every process does twice a minute.
    let (stop, stopped) = watch::channel(false);
    let ended = jobs::start(&provider.app, &stopped);
    let store = &provider.app.store;
    let gone = async |id: &str| store.event_position(id).await.expect("an answer").is_none().then_some(());
    wait_for("the old event is gone", async || gone(&old_id).await).await;
    assert!(gone(&young_id).await.is_none(), "too early");
    stop.send(true).expect("told");
    ended.await.expect("ended");
    provider.pass(Span::minutes(11));
    store.purge_expired(provider.app.config.events.retention, provider.app.now()).await.expect("purged");
    assert!(gone(&young_id).await.is_some(), "its time is over as well");
}

#[tokio::test]
async fn events_go_when_their_time_is_over_on_sqlite() {
    events_go_when_their_time_is_over(Backend::Sqlite).await;
}

#[tokio::test]
async fn events_go_when_their_time_is_over_on_postgres() {
    events_go_when_their_time_is_over(Backend::Postgres).await;
}
