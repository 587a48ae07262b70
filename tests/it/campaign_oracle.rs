//! Two years of three campaigns in three zones: the clock is moved from event to event, and a plain model of the rules, which knows nothing of
//! the SQL, says what has to come of each.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::campaign::campaign;
use crate::harness::TestDb;

const WEEK: i64 = 7 * 86_400_000_000;

/// Name, zone, daily budget, monthly budget in cents.
const CAMPAIGNS: [(&str, Tz, i64, i64); 3] = [
    ("york", Tz::America__New_York, 5_000, 40_000),
    ("kathmandu", Tz::Asia__Kathmandu, 3_000, 60_000),
    ("howe", Tz::Australia__Lord_Howe, 4_000, 50_000),
];
/// Campaign, day, start, end in seconds: within days and over midnight, into Monday, across the hours that clocks leave out or repeat.
const WINDOWS: [(usize, u8, i64, i64); 11] = [
    (0, 1, 9 * 3600, 17 * 3600),
    (0, 3, 22 * 3600, 2 * 3600),
    (0, 7, 5400, 2 * 3600 + 900),
    (0, 7, 20 * 3600, 86_400),
    (1, 5, 23 * 3600 + 3360, 240),
    (1, 7, 21 * 3600, 5 * 3600),
    (1, 2, 0, 23 * 3600 + 3540),
    (2, 6, 12 * 3600, 2 * 3600 + 600),
    (2, 7, 6300, 3 * 3600),
    (2, 4, 7, 86_399),
    (2, 1, 6 * 3600, 6 * 3600 + 60),
];

/// Microseconds since the local week began.
fn of_week(local: NaiveDateTime) -> i64 {
    i64::from(local.weekday().num_days_from_monday()) * 86_400_000_000
        + i64::from(local.num_seconds_from_midnight()) * 1_000_000
        + i64::from(local.nanosecond() / 1000)
}

/// Whether a campaign's windows are open: the week as a circle, each window an arc that begins on its day.
fn is_open(campaign: usize, at: DateTime<Utc>) -> bool {
    let now = of_week(at.with_timezone(&CAMPAIGNS[campaign].1).naive_local());
    WINDOWS.iter().filter(|window| window.0 == campaign).any(|(_, day, start, end)| {
        let midnight = i64::from(day - 1) * 86_400;
        let begins = (midnight + start) * 1_000_000;
        let ends = match (*end, end < start) {
            (86_340.., _) => (midnight + 86_400) * 1_000_000 - 1,
            (end, false) => (midnight + end) * 1_000_000,
            (end, true) => (midnight + 86_400 + end) * 1_000_000,
        };
        [now, now + WEEK].into_iter().any(|now| begins <= now && now <= ends)
    })
}

/// The first instant of a local day.
fn begin_of(zone: Tz, day: NaiveDate) -> DateTime<Utc> {
    let midnight = day.and_hms_opt(0, 0, 0).unwrap();
    zone.from_local_datetime(&midnight).earliest().expect("no clock of these is changed at midnight").to_utc()
}

/// All instants at which a wall clock shows this.
fn instants(zone: Tz, local: NaiveDateTime) -> Vec<DateTime<Utc>> {
    let found = zone.from_local_datetime(&local);
    [found.earliest(), found.latest()].into_iter().flatten().map(|at| at.to_utc()).collect()
}

fn days() -> impl Iterator<Item = NaiveDate> {
    NaiveDate::from_ymd_opt(2026, 1, 1).unwrap().iter_days().take(731)
}

/// Every boundary, the microseconds around it, and every five minutes around changes of the clock.
fn probes(campaign: usize) -> Vec<DateTime<Utc>> {
    let zone = CAMPAIGNS[campaign].1;
    let mut probes = Vec::new();
    for day in days() {
        let number = day.weekday().number_from_monday() as u8;
        for (_, of, start, end) in WINDOWS.iter().filter(|window| window.0 == campaign) {
            if *of == number {
                let midnight = day.and_hms_opt(0, 0, 0).unwrap();
                let ends = if end < start {
                    end + 86_400
                } else if *end >= 86_340 {
                    86_400
                } else {
                    *end
                };
                for local in [midnight + TimeDelta::seconds(*start), midnight + TimeDelta::seconds(ends)] {
                    for at in instants(zone, local) {
                        probes.extend([-1, 0, 1].map(|us| at + TimeDelta::microseconds(us)));
                    }
                }
            }
        }
        let (noon, next) = (begin_of(zone, day), begin_of(zone, day + Days::new(1)));
        if next - noon != TimeDelta::hours(24) {
            probes.extend((0..96).map(|n| noon + TimeDelta::minutes(5 * n)));
        }
    }
    probes.sort_unstable();
    probes.dedup();
    probes
}

/// The three campaigns, made at the begin of these years.
async fn set_up(db: &TestDb) {
    crate::campaign::at(db, "2025-12-31 00:00Z").await;
    db.run("delete from campaign.campaign").await;
    for (name, zone, daily, monthly) in CAMPAIGNS {
        db.run(&format!(
            "insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date, time_zone)
             select id, '{name}', 'active', {daily} / 100.0, {monthly} / 100.0, '2020-01-01', '{zone}' from campaign.brand"
        ))
        .await;
    }
    for (campaign, day, start, end) in WINDOWS {
        db.run(&format!(
            "insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time)
             select id, {day}, ('00:00:00'::interval + {start} * interval '1 s')::text::time, (case when {end} = 86400 then '24:00' else ({end} * interval '1 s')::text end)::time
             from campaign.campaign where name = '{}'",
            CAMPAIGNS[campaign].0
        ))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_open_exactly_when_a_plain_model_says_so_for_two_years_in_three_zones() {
    let db = campaign().await;
    set_up(&db).await;
    for (campaign, (name, ..)) in CAMPAIGNS.iter().enumerate() {
        let probes = probes(campaign);
        let texts: Vec<String> = probes.iter().map(|at| at.format("%F %T%.6fZ").to_string()).collect();
        let said: Vec<bool> = db
            .get_with(
                "select array_agg(campaign.is_within_dayparting(c.id, u.at::timestamptz) order by u.n)
                 from campaign.campaign c, unnest($1::text[]) with ordinality u (at, n) where c.name = $2::text",
                &[&texts, name],
            )
            .await;
        let wrong: Vec<_> =
            probes.iter().zip(&said).filter(|(at, said)| is_open(campaign, **at) != **said).take(5).collect();
        assert!(probes.len() > 1000 && wrong.is_empty(), "{name}: {wrong:?}");
        // Every change of the answer is a boundary.
        let switches =
            probes.windows(2).filter(|pair| is_open(campaign, pair[0]) != is_open(campaign, pair[1]));
        let switches: Vec<String> = switches.map(|pair| pair[1].format("%F %T%.6fZ").to_string()).collect();
        let missing: Vec<String> = db
            .get_with(
                "select coalesce(array_agg(u.at), '{}') from campaign.campaign c, unnest($1::text[]) u (at) where c.name = $2::text
                 and not u.at::timestamptz in (select b from campaign.boundaries(array[c.id], u.at::timestamptz - interval '3 minutes', u.at::timestamptz + interval '2 minutes') b)",
                &[&switches, name],
            )
            .await;
        assert!(switches.len() > 300 && missing.is_empty(), "{name}: {missing:?}");
    }
}

/// What the model knows of a campaign.
struct Model {
    campaign: usize,
    reason: Option<&'static str>,
    daily: i64,
    monthly: i64,
    day: NaiveDate,
    month: NaiveDate,
}

impl Model {
    fn today(&self, at: DateTime<Utc>) -> NaiveDate {
        at.with_timezone(&CAMPAIGNS[self.campaign].1).date_naive()
    }

    fn decide(&mut self, at: DateTime<Utc>) {
        let (_, _, daily, monthly) = CAMPAIGNS[self.campaign];
        self.reason = if self.daily > daily || self.monthly > monthly {
            Some("budget")
        } else {
            (!is_open(self.campaign, at)).then_some("dayparting")
        };
    }

    fn begin_day(&mut self, at: DateTime<Utc>) -> bool {
        let begun = self.day < self.today(at);
        if begun {
            (self.day, self.daily) = (self.today(at), 0);
        }
        begun
    }

    fn begin_month(&mut self, at: DateTime<Utc>) -> bool {
        let begun = self.month < self.today(at).with_day(1).unwrap();
        if begun {
            (self.month, self.monthly) = (self.today(at).with_day(1).unwrap(), 0);
        }
        begun
    }

    fn step(&mut self, at: DateTime<Utc>, what: &Event) {
        match *what {
            Event::Enforce => self.decide(at),
            Event::Daily(zone) if zone == self.campaign && self.begin_day(at) => self.decide(at),
            Event::Monthly(zone) if zone == self.campaign && self.begin_month(at) => self.decide(at),
            Event::Spend(campaign, cents) if campaign == self.campaign => {
                self.begin_day(at);
                self.begin_month(at);
                self.decide(at);
                if self.reason.is_none() {
                    self.daily += cents;
                    self.monthly += cents;
                    self.decide(at);
                }
            }
            _ => {}
        }
    }

    fn show(&self) -> Value {
        json!([
            self.reason.unwrap_or("active"),
            format!("{}.{:02}", self.daily / 100, self.daily % 100),
            format!("{}.{:02}", self.monthly / 100, self.monthly % 100),
            self.day.to_string(),
            self.month.to_string()
        ])
    }
}

/// What happens; of a campaign, or of the zone of that one.
enum Event {
    Enforce,
    Daily(usize),
    Monthly(usize),
    Spend(usize, i64),
}

/// Resets at local midnights (some come late, some twice), enforcement after boundaries and around changes of the clock, and money.
fn events() -> Vec<(DateTime<Utc>, Event)> {
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let mut events = Vec::new();
    for (campaign, (_, zone, ..)) in CAMPAIGNS.iter().enumerate() {
        for day in days() {
            let begins = begin_of(*zone, day);
            let late = TimeDelta::seconds(if random.u8(0..10) == 0 { random.i64(0..20_000) } else { 1 });
            for _ in 0..=usize::from(random.u8(0..10) == 0) {
                events.push((begins + late, Event::Daily(campaign)));
            }
            if day.day() == 1 {
                events.push((begins + late, Event::Monthly(campaign)));
            }
            let at = begins + TimeDelta::seconds(random.i64(0..86_400)) + TimeDelta::milliseconds(500);
            events.push((at, Event::Spend(campaign, random.i64(1..6_000))));
        }
        // Now and then some boundaries are missed: the next run puts it right.
        let probes =
            probes(campaign).into_iter().filter(|at| at.timestamp_subsec_micros() == 0 && random.bool());
        events.extend(probes.map(|at| (at + TimeDelta::milliseconds(500), Event::Enforce)));
    }
    events.sort_by_key(|event| event.0);
    events.dedup_by(|a, b| a.0 == b.0 && matches!((&a.1, &b.1), (Event::Enforce, Event::Enforce)));
    // A time of its own for each, and room for the machine to be slow.
    for n in 1..events.len() {
        events[n].0 = events[n].0.max(events[n - 1].0 + TimeDelta::milliseconds(1));
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn two_years_of_spends_resets_and_enforcement_in_three_zones_are_those_of_a_plain_model() {
    let db = campaign().await;
    set_up(&db).await;
    let events = events();
    let script: Vec<Value> = events
        .iter()
        .map(|(at, event)| {
            let call = match event {
                Event::Enforce => json!({ "do": "enforce" }),
                Event::Daily(zone) => json!({ "do": "daily", "zone": CAMPAIGNS[*zone].1.name() }),
                Event::Monthly(zone) => json!({ "do": "monthly", "zone": CAMPAIGNS[*zone].1.name() }),
                Event::Spend(campaign, cents) => {
                    json!({ "do": "spend", "name": CAMPAIGNS[*campaign].0, "amount": *cents as f64 / 100.0 })
                }
            };
            json!({ "at": at.format("%F %T%.6fZ").to_string(), "call": call })
        })
        .collect();
    db.run(
        "create table public.seen (n int, state jsonb);
         -- What is enqueued for boundaries is not this test's business.
         delete from rowbeat.task;
         create function public.play(p_script jsonb) returns void language plpgsql as $$
         declare e record; v_call jsonb; begin
             for e in select * from jsonb_array_elements(p_script) with ordinality u (event, n) loop
                 perform set_config('rowbeat.clock_offset', ((e.event ->> 'at')::timestamptz - clock_timestamp())::text, false);
                 v_call := e.event -> 'call';
                 case v_call ->> 'do'
                     when 'enforce' then perform campaign.enforce_dayparting();
                     when 'daily' then perform campaign.reset_daily_spends(v_call ->> 'zone');
                     when 'monthly' then perform campaign.reset_monthly_spends(v_call ->> 'zone');
                     else perform campaign.add_campaign_spend((select id from campaign.campaign where name = v_call ->> 'name'), (v_call ->> 'amount')::numeric);
                 end case;
                 insert into public.seen select e.n, jsonb_agg(jsonb_build_array(coalesce(pause_reason, status), daily_spend::text, monthly_spend::text, daily_period, monthly_period)
                     order by id) from campaign.campaign;
             end loop; end $$",
    )
    .await;
    // In pieces, as the session's statements would come.
    for (number, piece) in script.chunks(500).enumerate() {
        db.get_with::<Option<String>>("select public.play($1)::text", &[&Value::from(piece.to_vec())]).await;
        db.run(&format!("update public.seen set n = n + 1000000 + {number} * 500 where n < 1000000; delete from rowbeat.task")).await;
    }
    let seen: Vec<Value> = db.get("select array_agg(state order by n) from public.seen").await;
    let mut models: Vec<Model> = (0..3)
        .map(|campaign| {
            let day = Utc
                .with_ymd_and_hms(2025, 12, 31, 0, 0, 0)
                .unwrap()
                .with_timezone(&CAMPAIGNS[campaign].1)
                .date_naive();
            let mut model =
                Model { campaign, reason: None, daily: 0, monthly: 0, day, month: day.with_day(1).unwrap() };
            model.decide(Utc.with_ymd_and_hms(2025, 12, 31, 0, 0, 0).unwrap());
            model
        })
        .collect();
    for (number, (at, event)) in events.iter().enumerate() {
        models.iter_mut().for_each(|model| model.step(*at, event));
        let expected: Vec<Value> = models.iter().map(Model::show).collect();
        assert_eq!(seen[number], json!(expected), "event {number} at {at}: {}", script[number]);
    }
    assert!(events.len() > 5_000, "{}", events.len());
    db.run("reset rowbeat.clock_offset").await;
    crate::campaign::books_agree(&db).await;
}
