-- Triggers: rows keep their times, their rules and their trail, and what changes the answer asks the question again.

-- Promises: an update of pause_reason is told apart from one that leaves it out. A mark in the row: keep_campaign, which comes last, takes it
--   away. Triggers of an event run in the order of their names.
create or replace function campaign.note_reason() returns trigger language plpgsql as $$
begin
    new.updated_at := 'infinity';
    return new;
end $$;
comment on function campaign.note_reason() is 'Notes that an update names the reason.';
create or replace trigger a_note_reason before update of pause_reason on campaign.campaign
    for each row execute function campaign.note_reason();

create or replace function campaign.pause_by_hand() returns trigger language plpgsql as $$
begin
    if new.updated_at <> 'infinity' then
        new.pause_reason := 'manual';
    end if;
    return new;
end $$;
comment on function campaign.pause_by_hand() is 'A pause without a reason is a person''s.';
create or replace trigger b_pause_by_hand before update of status on campaign.campaign
    for each row when (new.status = 'paused') execute function campaign.pause_by_hand();

-- Promises: times, zone, periods and reason fit. Locks, for a new campaign: its brand, shared, so that one that is being switched off is waited for.
-- SQLSTATEs: RP400 (unknown zone).
create or replace function campaign.keep_campaign() returns trigger language plpgsql as $$
declare
    v_now   timestamptz := rowbeat.now_();
    v_zone  text;
begin
    if tg_op = 'INSERT' then
        new.created_at := coalesce(new.created_at, v_now);
    end if;
    if tg_op = 'INSERT' or new.brand_id <> old.brand_id then
        select b.time_zone into v_zone from campaign.brand b where b.id = new.brand_id for share;
    end if;
    if new.daily_period is null or new.monthly_period is null then
        v_zone := coalesce(new.time_zone, v_zone, campaign.default_zone());
        new.daily_period := coalesce(new.daily_period, (campaign.local_time(v_now, v_zone))::date);
        new.monthly_period := coalesce(new.monthly_period, date_trunc('month', campaign.local_time(v_now, v_zone))::date);
    end if;
    new.updated_at := v_now;
    -- The reason goes with the pause; one that is given without a pause is for the table to refuse.
    new.pause_reason := case when new.status = 'paused' then coalesce(new.pause_reason, 'manual')
        when tg_op = 'INSERT' or new.pause_reason is distinct from old.pause_reason then new.pause_reason end;
    return new;
end $$;
comment on function campaign.keep_campaign() is 'Fills in what a campaign''s row needs.';
create or replace trigger keep_campaign before insert or update on campaign.campaign
    for each row execute function campaign.keep_campaign();

-- Promises: the counters of these campaigns count the day and the month that it is for them at p_at, as the logs say; p_counter (daily,
--   monthly; null: both). One that does so already is not touched. Returns those that were moved.
-- Called by: who holds their locks.
create or replace function campaign.move_on(p_ids bigint[], p_at timestamptz, p_counter text default null) returns setof bigint
language plpgsql volatile as $$
begin
    return query update campaign.campaign c set
        daily_period = n.day, monthly_period = n.month,
        daily_spend = case when n.day = c.daily_period then c.daily_spend else
            coalesce((select sum(s.amount) from campaign.spend s where s.campaign_id = c.id and s.spend_day = n.day), 0)
            - coalesce((select sum(r.amount_cleared) from campaign.counter_clear r where r.campaign_id = c.id and r.counter = 'daily' and r.period = n.day), 0)
            end,
        monthly_spend = case when n.month = c.monthly_period then c.monthly_spend else
            coalesce((select sum(s.amount) from campaign.spend s where s.campaign_id = c.id and s.spend_month = n.month), 0)
            - coalesce((select sum(r.amount_cleared) from campaign.counter_clear r where r.campaign_id = c.id and r.counter = 'monthly' and r.period = n.month), 0)
            end
    from (
        select z.id, case when p_counter = 'monthly' then z.daily_period else (p_at at time zone z.zone)::date end as day,
            case when p_counter = 'daily' then z.monthly_period else date_trunc('month', p_at at time zone z.zone)::date end as month
        from unnest(p_ids) i join campaign.zoned_campaign z on z.id = i
    ) n
    where c.id = n.id and (c.daily_period, c.monthly_period) <> (n.day, n.month)
    returning c.id;
end $$;
comment on function campaign.move_on(bigint[], timestamptz, text) is 'Moves counters to the current day and month.';

-- Promises: the change of status or reason is in the trail.
create or replace function campaign.log_status() returns trigger language plpgsql as $$
begin
    insert into campaign.status_change (campaign_id, from_status, to_status, from_reason, to_reason, cause, actor, task_id, at)
    values (new.id, old.status, new.status, old.pause_reason, new.pause_reason, coalesce(nullif(current_setting('campaign.cause', true), ''), 'edit'),
        coalesce(nullif(current_setting('campaign.actor', true), ''), nullif(current_setting('rowbeat.actor', true), ''), session_user),
        nullif(current_setting('rowbeat.task_id', true), '')::bigint, rowbeat.now_());
    return null;
end $$;
comment on function campaign.log_status() is 'Logs a change of status.';
-- What follows an edit is logged after the edit: triggers of an event run in the order of their names.
drop trigger if exists log_status on campaign.campaign;
create or replace trigger a_log_status after update on campaign.campaign
    for each row when ((old.status, old.pause_reason) is distinct from (new.status, new.pause_reason)) execute function campaign.log_status();

-- Promises: a campaign whose budgets or dates changed is decided; one that is in another zone now counts that zone's day, and the zones' schedules
--   follow. SQLSTATEs: RP400 (unknown zone).
create or replace function campaign.follow_edit() returns trigger language plpgsql as $$
begin
    if (new.brand_id, new.time_zone) is distinct from (old.brand_id, old.time_zone) then
        perform campaign.follow_zones(array[old.time_zone, new.time_zone]);
        perform campaign.move_on(array[new.id], rowbeat.now_());
        perform campaign.enqueue_boundaries(array[new.id]);
    end if;
    perform campaign.decide_all(array[new.id], null, 'edit');
    return null;
end $$;
comment on function campaign.follow_edit() is 'Decides anew what an edit concerns.';
create or replace trigger follow_edit after update on campaign.campaign
    for each row when ((old.daily_budget, old.monthly_budget, old.start_date, old.end_date, old.brand_id, old.time_zone)
        is distinct from (new.daily_budget, new.monthly_budget, new.start_date, new.end_date, new.brand_id, new.time_zone))
    execute function campaign.follow_edit();

-- A row that comes with counters restores a state: it is left as it is.
create or replace function campaign.follow_campaign_insert() returns trigger language plpgsql as $$
declare
    v_ids    bigint[] := array(select n.id from new_row n where n.status in ('active', 'paused') and n.daily_spend = 0 and n.monthly_spend = 0);
begin
    perform campaign.follow_zones(array(select n.time_zone from new_row n));
    if v_ids <> '{}' then
        perform campaign.decide_all(v_ids, null, 'edit');
    end if;
    return null;
end $$;
comment on function campaign.follow_campaign_insert() is 'Decides new campaigns, and makes their zones'' schedules.';
create or replace trigger follow_campaign_insert after insert on campaign.campaign
    referencing new table as new_row for each statement execute function campaign.follow_campaign_insert();

-- Promises: the zones that went with rows of brands or campaigns have no schedules if nobody else uses them.
create or replace function campaign.follow_zone_delete() returns trigger language plpgsql as $$
begin
    perform campaign.follow_zones(array(select coalesce(o.time_zone, campaign.default_zone()) from old_row o));
    return null;
end $$;
comment on function campaign.follow_zone_delete() is 'Takes away the schedules of zones that nobody uses any more.';
create or replace trigger follow_zone_delete after delete on campaign.campaign
    referencing old table as old_row for each statement execute function campaign.follow_zone_delete();
create or replace trigger follow_zone_delete after delete on campaign.brand
    referencing old table as old_row for each statement execute function campaign.follow_zone_delete();

create or replace function campaign.follow_truncate() returns trigger language plpgsql as $$
begin
    perform campaign.follow_all_zones();
    return null;
end $$;
comment on function campaign.follow_truncate() is 'Takes away the schedules of zones that nobody uses any more.';
create or replace trigger follow_truncate after truncate on campaign.campaign
    for each statement execute function campaign.follow_truncate();
create or replace trigger follow_truncate after truncate on campaign.brand
    for each statement execute function campaign.follow_truncate();

create or replace function campaign.keep_brand() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        new.created_at := coalesce(new.created_at, rowbeat.now_());
    end if;
    new.updated_at := rowbeat.now_();
    return new;
end $$;
comment on function campaign.keep_brand() is 'Fills in what a brand''s row needs.';
create or replace trigger keep_brand before insert or update on campaign.brand
    for each row execute function campaign.keep_brand();

create or replace function campaign.follow_brand_insert() returns trigger language plpgsql as $$
begin
    perform campaign.follow_zones(array(select coalesce(n.time_zone, campaign.default_zone()) from new_row n));
    return null;
end $$;
comment on function campaign.follow_brand_insert() is 'Makes the schedules of new brands'' zones.';
create or replace trigger follow_brand_insert after insert on campaign.brand
    referencing new table as new_row for each statement execute function campaign.follow_brand_insert();

-- Promises: the campaigns of brands that were switched on or off, or moved to another zone, are decided. Locks: those campaigns, in order of id,
--   over all of the brands.
create or replace function campaign.follow_brand_edit() returns trigger language plpgsql as $$
declare
    v_ids    bigint[] := array(
        select c.id from new_row n join old_row o on o.id = n.id join campaign.campaign c on c.brand_id = n.id
        where (o.is_active, o.time_zone) is distinct from (n.is_active, n.time_zone) order by c.id for no key update of c);
    v_zones  text[] := array(
        select coalesce(z, campaign.default_zone()) from new_row n join old_row o on o.id = n.id cross join unnest(array[o.time_zone, n.time_zone]) z
        where o.time_zone is distinct from n.time_zone);
begin
    if v_zones <> '{}' then
        perform campaign.follow_zones(v_zones);
        perform campaign.move_on(v_ids, rowbeat.now_());
        perform campaign.enqueue_boundaries(v_ids);
    end if;
    perform campaign.decide_all(v_ids, null, 'edit');
    return null;
end $$;
comment on function campaign.follow_brand_edit() is 'Decides the campaigns of brands that changed, and follows their zones.';
create or replace trigger follow_brand_edit after update on campaign.brand
    referencing old table as old_row new table as new_row for each statement execute function campaign.follow_brand_edit();

-- SQLSTATEs: RP400 (start and end are the same).
create or replace function campaign.keep_window() returns trigger language plpgsql as $$
begin
    if new.start_time = new.end_time then
        raise exception using errcode = 'RP400', message = 'Start and end time must differ.';
    elsif tg_op = 'INSERT' then
        new.created_at := coalesce(new.created_at, rowbeat.now_());
    end if;
    new.updated_at := rowbeat.now_();
    return new;
end $$;
comment on function campaign.keep_window() is 'Refuses a window without a length.';
create or replace trigger keep_window before insert or update on campaign.dayparting_window
    for each row execute function campaign.keep_window();

-- Promises: the campaigns of these windows (all, when all windows went at once) are decided, and the windows' boundaries before the next regular
--   run are enforced in time.
create or replace function campaign.follow_window() returns trigger language plpgsql as $$
declare
    v_ids  bigint[];
begin
    if tg_op = 'INSERT' then
        v_ids := array(select distinct n.campaign_id from new_row n);
    elsif tg_op = 'DELETE' then
        v_ids := array(select distinct o.campaign_id from old_row o);
    elsif tg_op = 'TRUNCATE' then
        v_ids := array(select c.id from campaign.campaign c where c.status in ('active', 'paused'));
    else
        v_ids := array(select o.campaign_id from old_row o union select n.campaign_id from new_row n);
    end if;
    if v_ids <> '{}' then
        perform campaign.decide_all(v_ids, null, 'edit');
        perform campaign.enqueue_boundaries(v_ids);
    end if;
    return null;
end $$;
comment on function campaign.follow_window() is 'Decides campaigns whose windows changed.';
create or replace trigger follow_window_insert after insert on campaign.dayparting_window
    referencing new table as new_row for each statement execute function campaign.follow_window();
create or replace trigger follow_window_update after update on campaign.dayparting_window
    referencing old table as old_row new table as new_row for each statement execute function campaign.follow_window();
create or replace trigger follow_window_delete after delete on campaign.dayparting_window
    referencing old table as old_row for each statement execute function campaign.follow_window();
create or replace trigger follow_window_truncate after truncate on campaign.dayparting_window
    for each statement execute function campaign.follow_window();

-- Promises: rows of the logs stay as they were written; they go only with their campaign. SQLSTATEs: RP409.
create or replace function campaign.refuse_edit() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and not exists (select from campaign.campaign c where c.id = old.campaign_id) then
        return old;
    elsif tg_op = 'TRUNCATE' and not exists (select from campaign.campaign) then
        return null;
    end if;
    raise exception using errcode = 'RP409', message = format('Rows of campaign.%s are neither changed nor deleted.', tg_table_name);
end $$;
comment on function campaign.refuse_edit() is 'Keeps the logs as they were written.';
create or replace trigger refuse_edit before update or delete on campaign.spend
    for each row execute function campaign.refuse_edit();
create or replace trigger refuse_edit before update or delete on campaign.counter_clear
    for each row execute function campaign.refuse_edit();
create or replace trigger refuse_edit before update or delete on campaign.status_change
    for each row execute function campaign.refuse_edit();
create or replace trigger refuse_truncate after truncate on campaign.spend
    for each statement execute function campaign.refuse_edit();
create or replace trigger refuse_truncate after truncate on campaign.counter_clear
    for each statement execute function campaign.refuse_edit();
create or replace trigger refuse_truncate after truncate on campaign.status_change
    for each statement execute function campaign.refuse_edit();
