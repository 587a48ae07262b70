-- Enforcement of windows: every few minutes, and at each boundary in between.

-- The instants after p_from, up to p_until, at which a window opens or closes: of these campaigns (null: of all). An end is included, so the
-- boundary is the next microsecond. Where a zone's clock is changed, that instant is a boundary, too, and the times before and after it are
-- counted by their own clock: each piece of time has one.
create or replace function campaign.boundaries(p_campaigns bigint[], p_from timestamptz, p_until timestamptz) returns setof timestamptz
language sql stable as $$
    with used as (
        select distinct z.zone, w.day_of_week, w.start_time, w.end_time
        from campaign.dayparting_window w join campaign.zoned_campaign z on z.id = w.campaign_id
        where w.is_active and z.status <> 'completed' and (p_campaigns is null or w.campaign_id = any (p_campaigns))
    ), zone as (
        select distinct u.zone, (p_until at time zone u.zone) - (p_from at time zone u.zone) <> p_until - p_from as is_changed from used u
    ), jump as (
        select j.zone, j.t from (
            select z.zone, t, (t at time zone z.zone) - lag(t at time zone z.zone) over (partition by z.zone order by t) as step
            from zone z cross join generate_series(date_trunc('second', p_from), p_until, '1 second') t where z.is_changed
        ) j where j.step <> '1 second'
    ), piece as (
        select b.zone, b.t as begins_at, b.t at time zone b.zone as begins_local,
            coalesce(lead(b.t) over (partition by b.zone order by b.t), p_until) as ends_at
        from (select z.zone, p_from as t from zone z union all select j.zone, j.t from jump j) b
    ), edge as (
        select p.begins_at, p.ends_at, p.begins_at + (e.local - p.begins_local) as at
        from used u join piece p on p.zone = u.zone
        cross join generate_series(p.begins_local::date::timestamp - interval '1 day', p.begins_local + interval '1 day', '1 day') d (day)
        cross join lateral (values
            (d.day::date + u.start_time),
            (case when u.end_time >= '23:59' then d.day::date + time '24:00'
                else d.day::date + (u.end_time < u.start_time)::integer + u.end_time + interval '1 microsecond' end)) e (local)
        where extract(isodow from d.day) = u.day_of_week
    )
    select e.at from edge e where e.at >= e.begins_at and e.at <= e.ends_at and e.at > p_from
    union
    select j.t from jump j where j.t > p_from
$$;
comment on function campaign.boundaries(bigint[], timestamptz, timestamptz) is 'When windows open or close between two times.';

-- Promises: the windows' boundaries before the next regular run are tasks, each instant once. Called by: enforcement, and whoever writes windows.
create or replace function campaign.enqueue_boundaries(p_campaigns bigint[] default null) returns void language plpgsql volatile as $$
declare
    v_now    timestamptz := rowbeat.now_();
    v_until  timestamptz := (select s.next_fire_at from rowbeat.schedule s where s.name = 'campaign.enforce_dayparting' and s.enabled);
    v_tasks  jsonb;
begin
    v_until := least(greatest(v_until, v_now + interval '5 minutes'), v_now + interval '1 hour');
    select jsonb_agg(jsonb_build_object('definition', 'campaign.enforce_dayparting', 'run_at', b,
        'unique_key', to_char(b at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) order by b)
    into v_tasks from campaign.boundaries(p_campaigns, v_now, v_until) b;
    if v_tasks is not null then
        perform rowbeat.enqueue_many(v_tasks);
    end if;
end $$;
comment on function campaign.enqueue_boundaries(bigint[]) is 'Enqueues enforcement for the coming boundaries.';

-- Promises: every active or paused campaign with an active window is decided; the others are never touched. The boundaries before the next
--   regular run are enqueued. Campaigns that stay as they are are not locked.
create or replace function campaign.enforce_all(out enabled bigint, out disabled bigint, out lines text[]) language plpgsql volatile as $$
declare
    v_now  timestamptz := rowbeat.now_();
    v_ids  bigint[] := array(select c.id from campaign.campaign c where c.status in ('active', 'paused')
        and exists (select from campaign.dayparting_window w where w.campaign_id = c.id and w.is_active));
begin
    select count(*) filter (where d.to_status = 'active'), count(*) filter (where d.to_reason = 'dayparting'),
        array_agg(case when d.to_status = 'active' then format('Enabled campaign %s due to dayparting schedule', d.name)
            when d.to_reason = 'dayparting' then format('Disabled campaign %s due to dayparting schedule', d.name)
            when d.to_status = 'completed' then 'Completed campaign ' || d.name
            else format('Paused campaign %s due to %s', d.name, d.to_reason) end order by d.campaign_id)
            filter (where d.to_status <> d.from_status or d.to_reason = 'dayparting')
    into enabled, disabled, lines
    from campaign.decide_all(array(select v.campaign_id from campaign.verdict(v_ids, v_now) v), null, 'dayparting') d;
    perform campaign.enqueue_boundaries();
end $$;
comment on function campaign.enforce_all() is 'Enforces the windows of all campaigns.';

create or replace function campaign.enforce_dayparting() returns jsonb language sql volatile as $$
    select jsonb_build_object('enabled_count', e.enabled, 'disabled_count', e.disabled) from campaign.enforce_all() e
$$;
comment on function campaign.enforce_dayparting() is 'Enforces the windows of all campaigns.';

create or replace function campaign.run_enforce_dayparting(payload jsonb) returns jsonb language sql volatile as $$
    select campaign.enforce_dayparting()
$$;
comment on function campaign.run_enforce_dayparting(jsonb) is 'Task campaign.enforce_dayparting.';
