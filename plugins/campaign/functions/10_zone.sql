-- Zones: whose is which, and the schedules that come and go with them.

-- Functions that are called for every spend are in plpgsql, which keeps their plans.

-- Whether the server knows the zone by exactly this name; its list takes a moment to read.
create or replace function campaign.knows_zone(p_zone text) returns boolean language plpgsql stable as $$
begin
    return p_zone = 'UTC' or p_zone !~ '^(posix|right)/|^(posixrules|localtime|Factory)$'
        and exists (select from pg_timezone_names z where z.name = p_zone);
end $$;
comment on function campaign.knows_zone(text) is 'Whether the server knows a zone.';

create or replace function campaign.zone_setting() returns text language plpgsql stable as $$
begin
    return coalesce((select s.value #>> '{}' from rowbeat.own_setting s where s.plugin = 'campaign' and s.name = 'zone'), 'UTC');
end $$;
comment on function campaign.zone_setting() is 'The setting zone, whatever it says.';

-- A setting that names no zone stops nobody: it is UTC then. What one means that was followed need not be looked up.
create or replace function campaign.default_zone() returns text language plpgsql stable as $$
declare
    v_setting  text := campaign.zone_setting();
    v_zone     text := (select f.zone from campaign.followed_zone f where f.setting = v_setting);
begin
    return coalesce(v_zone, case when campaign.knows_zone(v_setting) then v_setting else 'UTC' end);
end $$;
comment on function campaign.default_zone() is 'The zone of whoever names none.';

-- SQLSTATEs: RP400.
create or replace function campaign.check_zone(p_zone text) returns void language plpgsql stable as $$
begin
    if not campaign.knows_zone(p_zone) then
        raise exception using errcode = 'RP400', message = format('Unknown time zone: %s.', p_zone),
            hint = 'Write an IANA name such as Europe/Berlin.';
    end if;
end $$;
comment on function campaign.check_zone(text) is 'Refuses a zone that the server does not know.';

-- SQLSTATEs: RP400.
create or replace function campaign.local_time(p_at timestamptz, p_zone text) returns timestamp language plpgsql stable as $$
begin
    return p_at at time zone p_zone;
exception when invalid_parameter_value then
    perform campaign.check_zone(p_zone);
    raise;
end $$;
comment on function campaign.local_time(timestamptz, text) is 'A time by a zone''s clock, or a refusal of the zone.';

-- Campaigns with what they have from their brands. Every question about "local" is asked here.
create or replace view campaign.zoned_campaign as
select c.*, b.name as brand_name, b.is_active as brand_is_active, coalesce(c.time_zone, b.time_zone, d.zone) as zone
from campaign.campaign c join campaign.brand b on b.id = c.brand_id cross join (select campaign.default_zone() as zone offset 0) d;
comment on view campaign.zoned_campaign is 'Campaigns with their zone in force, and their brand''s name and activity.';

create or replace function campaign.zone_is_used(p_zone text) returns boolean language sql stable as $$
    select exists (select from campaign.brand b where b.time_zone = p_zone)
        or exists (select from campaign.campaign c where c.time_zone = p_zone)
        or p_zone = campaign.default_zone() and exists (select from campaign.brand b where b.time_zone is null)
$$;
comment on function campaign.zone_is_used(text) is 'Whether a brand or a campaign lives in this zone.';

-- Promises: each of these zones has its two reset schedules exactly if it is used. Safe to repeat. SQLSTATEs: RP400 (unknown zone).
-- Locks: an advisory lock for each zone to the end of the transaction, in order: shared by all who use it, alone who takes it away. So a zone
--   whose last user goes while another one comes keeps its schedules.
create or replace function campaign.follow_zones(p_zones text[]) returns void language plpgsql volatile as $$
declare
    v_zone  text;
begin
    for v_zone in select distinct z from unnest(p_zones) z where z is not null order by z loop
        if campaign.zone_is_used(v_zone) then
            perform pg_advisory_xact_lock_shared(hashtext('campaign'), hashtext(v_zone));
            continue when (select count(*) = 2 from rowbeat.schedule s
                where s.name in ('campaign.reset_daily_spends@' || v_zone, 'campaign.reset_monthly_spends@' || v_zone));
            perform campaign.check_zone(v_zone);
            insert into rowbeat.schedule (name, definition, spec, payload, time_zone, overlap, catch_up)
            select r.definition || '@' || v_zone, r.definition, r.spec, jsonb_build_object('zone', v_zone), v_zone, 'skip', 'last'
            from (values ('campaign.reset_daily_spends', '0 0 * * *'), ('campaign.reset_monthly_spends', '0 0 1 * *')) r (definition, spec)
            on conflict (name) do nothing;
        else
            perform pg_advisory_xact_lock(hashtext('campaign'), hashtext(v_zone));
            if not campaign.zone_is_used(v_zone) then
                delete from rowbeat.schedule s
                where s.name in ('campaign.reset_daily_spends@' || v_zone, 'campaign.reset_monthly_spends@' || v_zone);
            end if;
        end if;
    end loop;
end $$;
comment on function campaign.follow_zones(text[]) is 'Makes or removes the reset schedules of zones.';

-- Promises: the same for all zones. What no trigger sees is put right here: an edited setting, an installation over data that was kept.
create or replace function campaign.follow_all_zones() returns void language sql volatile as $$
    select campaign.follow_zones(array(
        select b.time_zone from campaign.brand b where b.time_zone is not null
        union select c.time_zone from campaign.campaign c where c.time_zone is not null
        union select campaign.default_zone() where exists (select from campaign.brand b where b.time_zone is null)
        union select substr(s.name, length('campaign.reset_daily_spends@') + 1) from rowbeat.schedule s
            where starts_with(s.name, 'campaign.reset_daily_spends@')
        union select substr(s.name, length('campaign.reset_monthly_spends@') + 1) from rowbeat.schedule s
            where starts_with(s.name, 'campaign.reset_monthly_spends@')))
$$;
comment on function campaign.follow_all_zones() is 'Makes or removes the reset schedules of all zones.';
