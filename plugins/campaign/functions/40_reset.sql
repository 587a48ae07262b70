-- Resets: a new local day, a new local month.

create or replace function campaign.pause_line(p_name text, p_reason text) returns text language sql immutable as $$
    select format('Paused campaign %s due to %s', p_name, case p_reason when 'budget' then 'budget limits' else p_reason end)
$$;
comment on function campaign.pause_line(text, text) is 'What commands say of a campaign that was paused.';

-- Promises: campaigns of every status whose day (or month) has passed count the new one, and are decided; the others are not touched. So it
--   may run late, twice, or in two daemons. Returns the moved campaigns, and those of them that became active.
-- Locks: the campaigns, in order of id. SQLSTATEs: RP400 (unknown zone).
create or replace function campaign.reset_spends(p_counter text, p_zone text, out moved bigint[], out activated bigint[], out lines text[])
language plpgsql volatile as $$
declare
    v_now  timestamptz := rowbeat.now_();
begin
    if p_zone is not null and not campaign.zone_is_used(p_zone) then
        perform campaign.check_zone(p_zone);
    end if;
    moved := array(
        select c.id from campaign.campaign c join campaign.brand b on b.id = c.brand_id
        cross join lateral (select coalesce(c.time_zone, b.time_zone, (select campaign.default_zone())) as zone) z
        where (p_zone is null or z.zone = p_zone) and case p_counter
            when 'daily' then c.daily_period < (v_now at time zone z.zone)::date
            else c.monthly_period < date_trunc('month', v_now at time zone z.zone)::date end
        order by c.id for no key update of c);
    perform campaign.move_on(moved, v_now, p_counter);
    select coalesce(array_agg(d.campaign_id) filter (where d.to_status = 'active'), '{}'),
        array_agg(case d.to_status when 'active' then 'Reactivated campaign: ' || d.name when 'completed' then 'Completed campaign: ' || d.name
            else campaign.pause_line(d.name, d.to_reason) end order by d.campaign_id) filter (where d.to_status <> d.from_status)
    into activated, lines
    from campaign.decide_all(moved, null, 'reset') d;
end $$;
comment on function campaign.reset_spends(text, text) is 'Moves campaigns to their new day or month.';

create or replace function campaign.count_reset(p_counter text, p_zone text) returns jsonb language sql volatile as $$
    select jsonb_build_object('reset_count', cardinality(r.moved), 'reactivated_count', cardinality(r.activated))
    from campaign.reset_spends(p_counter, p_zone) r
$$;
comment on function campaign.count_reset(text, text) is 'Resets a counter; answers {"reset_count", "reactivated_count"}.';

create or replace function campaign.reset_daily_spends(p_zone text default null) returns jsonb language sql volatile as $$
    select campaign.count_reset('daily', p_zone)
$$;
comment on function campaign.reset_daily_spends(text) is 'Begins the day of campaigns whose local day has changed.';

create or replace function campaign.reset_monthly_spends(p_zone text default null) returns jsonb language sql volatile as $$
    select campaign.count_reset('monthly', p_zone)
$$;
comment on function campaign.reset_monthly_spends(text) is 'Begins the month of campaigns whose local month has changed.';

create or replace function campaign.run_reset_daily_spends(payload jsonb) returns jsonb language sql volatile as $$
    select campaign.count_reset('daily', payload ->> 'zone')
$$;
comment on function campaign.run_reset_daily_spends(jsonb) is 'Task campaign.reset_daily_spends: {"zone"}.';

create or replace function campaign.run_reset_monthly_spends(payload jsonb) returns jsonb language sql volatile as $$
    select campaign.count_reset('monthly', payload ->> 'zone')
$$;
comment on function campaign.run_reset_monthly_spends(jsonb) is 'Task campaign.reset_monthly_spends: {"zone"}.';
