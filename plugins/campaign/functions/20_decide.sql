-- Whether a campaign may run: one question, asked in one place.

-- What stands in the way of campaigns at a time: ended, brand, dates, budget, dayparting (the first of them; null: nothing), and whether a
-- window is open. A window matches by the clock on the wall. One over midnight belongs to the day on which it starts; an end of 23:59 is
-- the end of the day, whatever its seconds. (Few rows are expected so that plans, which sessions keep, go by keys for one and for all.)
create or replace function campaign.standing(p_ids bigint[], p_at timestamptz)
returns table (campaign_id bigint, status text, pause_reason text, in_window boolean, obstacle text) language plpgsql stable rows 10 as $$
begin
    return query select z.id, z.status, z.pause_reason, w.is_open, case
        when l.at::date > z.end_date then 'ended'
        when not z.brand_is_active then 'brand'
        when l.at::date < z.start_date then 'dates'
        when z.daily_spend > z.daily_budget or z.monthly_spend > z.monthly_budget then 'budget'
        when not w.is_open then 'dayparting' end
    from unnest(p_ids) i join campaign.zoned_campaign z on z.id = i
    cross join lateral (select p_at at time zone z.zone as at, extract(isodow from p_at at time zone z.zone)::integer as day offset 0) l
    cross join lateral (
        select coalesce(bool_or(
            d.day_of_week = l.day and l.at::time >= d.start_time
                and (l.at::time <= d.end_time or d.end_time >= '23:59' or d.end_time < d.start_time)
            or d.day_of_week = (l.day + 5) % 7 + 1 and l.at::time <= d.end_time and d.end_time < d.start_time and d.end_time < '23:59'),
            true) as is_open
        from campaign.dayparting_window d where d.campaign_id = z.id and d.is_active
    ) w;
end $$;
comment on function campaign.standing(bigint[], timestamptz) is 'What stands in the way of campaigns, and whether a window is open.';

-- What the decision changes: no row for a campaign that stays as it is, for drafts and for completed ones.
create or replace function campaign.verdict(p_ids bigint[], p_at timestamptz)
returns table (campaign_id bigint, to_status text, to_reason text) language plpgsql stable rows 10 as $$
begin
    return query select v.campaign_id, v.to_status, v.to_reason
    from (
        select s.campaign_id, s.status, s.pause_reason,
            case when s.obstacle = 'ended' then 'completed' when s.pause_reason = 'manual' or s.obstacle is not null then 'paused' else 'active' end
                as to_status,
            case when s.obstacle = 'ended' then null when s.pause_reason = 'manual' then 'manual' else s.obstacle end as to_reason
        from campaign.standing(p_ids, p_at) s where s.status in ('active', 'paused')
    ) v
    where (v.to_status, v.to_reason) is distinct from (v.status, v.pause_reason);
end $$;
comment on function campaign.verdict(bigint[], timestamptz) is 'The campaigns that a decision changes, and how.';

-- Promises: what is written from now on in this transaction has this cause and actor; the outermost says it. Returns what was said before,
--   to be handed to leave. Called by: whoever changes the status of campaigns.
create or replace function campaign.enter(p_cause text, p_actor text default null) returns text[] language plpgsql volatile as $$
declare
    v_before  text[] := array[coalesce(current_setting('campaign.cause', true), ''), coalesce(current_setting('campaign.actor', true), '')];
begin
    perform set_config('campaign.cause', coalesce(nullif(v_before[1], ''), p_cause), true),
        set_config('campaign.actor', coalesce(nullif(v_before[2], ''), p_actor, ''), true);
    return v_before;
end $$;
comment on function campaign.enter(text, text) is 'Says why and for whom statuses change from now on.';

create or replace function campaign.leave(p_before text[]) returns void language sql volatile as $$
    select set_config('campaign.cause', p_before[1], true), set_config('campaign.actor', p_before[2], true)
$$;
comment on function campaign.leave(text[]) is 'Ends what enter began.';

-- Promises: these campaigns stand as their brands, dates, budgets and windows want it at p_at; each change is in status_change. Returns the
--   changes. p_at null: now, which is when the locks are held, so that whoever waited does not undo what was decided meanwhile. Without
--   p_may_activate nothing becomes active. Edits that are parts of a larger one (campaign.in_edit) are decided by that, at its end.
--   Called by: everything. Locks: the campaigns, in order of id.
create or replace function campaign.decide_all(p_ids bigint[], p_at timestamptz, p_cause text, p_may_activate boolean default true)
returns table (campaign_id bigint, name text, from_status text, to_status text, to_reason text) language plpgsql volatile as $$
declare
    v_at      timestamptz;
    v_before  text[];
begin
    if p_cause = 'edit' and current_setting('campaign.in_edit', true) = 'on' then
        return;
    end if;
    perform from campaign.campaign c where c.id = any (p_ids) order by c.id for no key update;
    v_at := coalesce(p_at, rowbeat.now_());
    if not exists (select from campaign.verdict(p_ids, v_at)) then
        return;
    end if;
    v_before := campaign.enter(p_cause);
    return query
    with old as (
        select c.id, c.status, v.to_status, v.to_reason
        from campaign.verdict(p_ids, v_at) v join campaign.campaign c on c.id = v.campaign_id
        where p_may_activate or v.to_status <> 'active'
    )
    update campaign.campaign c set status = o.to_status, pause_reason = o.to_reason
    from old o where c.id = o.id
    returning c.id, c.name::text, o.status, c.status, c.pause_reason;
    perform campaign.leave(v_before);
end $$;
comment on function campaign.decide_all(bigint[], timestamptz, text, boolean) is 'Decides campaigns; returns what changed.';

-- Promises: the campaign stands as everything together wants it at p_at; returns its status, null when there is no such campaign.
--   Locks: the campaign.
create or replace function campaign.decide(p_campaign_id bigint, p_at timestamptz default rowbeat.now_(), p_cause text default 'check')
returns text language plpgsql volatile as $$
begin
    perform campaign.decide_all(array[p_campaign_id], p_at, p_cause);
    return (select c.status from campaign.campaign c where c.id = p_campaign_id);
end $$;
comment on function campaign.decide(bigint, timestamptz, text) is 'Decides whether a campaign runs.';

-- Whether a campaign's windows let it run at a time. SQLSTATEs: RP404.
create or replace function campaign.is_within_dayparting(p_campaign_id bigint, p_at timestamptz) returns boolean language plpgsql stable as $$
declare
    v_open  boolean := (select s.in_window from campaign.standing(array[p_campaign_id], p_at) s);
begin
    if v_open is null then
        raise exception using errcode = 'RP404', message = format('Campaign with ID %s not found', p_campaign_id);
    end if;
    return v_open;
end $$;
comment on function campaign.is_within_dayparting(bigint, timestamptz) is 'Whether a campaign''s windows let it run at a time.';
