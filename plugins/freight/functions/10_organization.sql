-- Organizations and their people: how names are kept, what comes with an organization, who acts.

-- Promises: every row knows when it was made and changed, by rowbeat's clock.
create or replace function freight.touch() returns trigger language plpgsql as $$
begin
    new.created_at := case when tg_op = 'INSERT' then coalesce(new.created_at, rowbeat.now_()) else old.created_at end;
    new.updated_at := rowbeat.now_();
    return new;
end $$;
comment on function freight.touch() is 'Keeps created_at and updated_at.';

do $$
declare
    v_table  regclass;
begin
    for v_table in
        select a.attrelid from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
        where c.relnamespace = 'freight'::regnamespace and c.relkind = 'r' and a.attname = 'updated_at' and not a.attisdropped
    loop
        execute format('create or replace trigger touch before insert or update on %s for each row execute function freight.touch()', v_table);
    end loop;
end $$;

-- Promises: names are kept as they are compared (title case), the zone is known to the server. SQLSTATEs: RP400.
create or replace function freight.keep_organization() returns trigger language plpgsql as $$
begin
    new.name := initcap(trim(new.name));
    new.scac_code := upper(trim(new.scac_code));
    begin
        perform now() at time zone new.time_zone;
    exception when invalid_parameter_value then
        raise exception using errcode = 'RP400', message = format('Time zone %s is unknown.', new.time_zone);
    end;
    return new;
end $$;
comment on function freight.keep_organization() is 'Keeps an organization''s name in title case and its zone known.';
create or replace trigger keep_organization before insert or update on freight.organization
    for each row execute function freight.keep_organization();

create or replace function freight.equip_organization() returns trigger language plpgsql as $$
begin
    insert into freight.billing_control (organization_id) values (new.id);
    insert into freight.rate_counter (organization_id) values (new.id);
    return null;
end $$;
comment on function freight.equip_organization() is 'Gives a new organization its billing control and its counter of rates.';
create or replace trigger equip_organization after insert on freight.organization
    for each row execute function freight.equip_organization();

create or replace function freight.keep_user() returns trigger language plpgsql as $$
begin
    new.username := lower(trim(new.username));
    new.email := trim(new.email);
    return new;
end $$;
comment on function freight.keep_user() is 'Keeps usernames in small letters.';
create or replace trigger keep_user before insert or update on freight.app_user
    for each row execute function freight.keep_user();

-- Whether a text looks like one address.
create or replace function freight.is_address(p_text text) returns boolean language sql immutable as $$
    select p_text ~ '^[A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$'
        and length(p_text) <= 254
$$;
comment on function freight.is_address(text) is 'Whether a text looks like a mail address.';

-- The addresses of a comma list, blanks dropped.
create or replace function freight.addresses(p_list text) returns text[] language sql immutable as $$
    select coalesce(array_agg(trim(a.address) order by a.n), '{}')
    from string_to_table(p_list, ',') with ordinality a (address, n) where trim(a.address) <> ''
$$;
comment on function freight.addresses(text) is 'The addresses of a comma list.';

-- Promises: the list, tidied. SQLSTATEs: RP400 (one that is no address).
create or replace function freight.check_addresses(p_list text) returns text language plpgsql immutable as $$
declare
    v_address  text;
begin
    foreach v_address in array freight.addresses(p_list) loop
        if not freight.is_address(v_address) then
            raise exception using errcode = 'RP400', message = format('%s is not a valid email address.', v_address);
        end if;
    end loop;
    return array_to_string(freight.addresses(p_list), ', ');
end $$;
comment on function freight.check_addresses(text) is 'Tidies a list of addresses, and refuses what is none.';

-- The user who acts. SQLSTATEs: RP404.
create or replace function freight.acting_user(p_user_id uuid) returns freight.app_user language plpgsql stable as $$
declare
    v_user  freight.app_user;
begin
    select * into v_user from freight.app_user u where u.id = p_user_id and u.is_active;
    if not found then
        raise exception using errcode = 'RP404', message = format('User %s does not exist or is not active.', p_user_id);
    end if;
    return v_user;
end $$;
comment on function freight.acting_user(uuid) is 'The active user with this id.';

-- The user that an authenticated operator is; null id: none.
create or replace function freight.user_of(p_actor text) returns freight.app_user language sql stable as $$
    select u.* from freight.app_user u where u.username = lower(trim(p_actor)) and u.is_active
$$;
comment on function freight.user_of(text) is 'The active user of this name.';

create or replace function freight.local_date(p_zone text, p_at timestamptz) returns date language sql stable as $$
    select (p_at at time zone p_zone)::date
$$;
comment on function freight.local_date(text, timestamptz) is 'The date in a zone at an instant.';

-- Promises: the organization is entitled from now, or then, on. Returns the entitlement's id.
create or replace function freight.grant_entitlement(
    p_organization_id uuid, p_feature text, p_from timestamptz default null, p_until timestamptz default null
) returns uuid language plpgsql volatile as $$
declare
    v_id  uuid;
begin
    if p_feature is null or p_feature not in ('billing', 'auto_billing') then
        raise exception using errcode = 'RP400', message = format('Feature %s is unknown: billing or auto_billing.', p_feature);
    elsif not exists (select from freight.organization o where o.id = p_organization_id) then
        raise exception using errcode = 'RP404', message = format('Organization %s does not exist.', p_organization_id);
    elsif p_until <= coalesce(p_from, rowbeat.now_()) then
        raise exception using errcode = 'RP400', message = 'An entitlement ends after it begins.';
    end if;
    insert into freight.entitlement (organization_id, feature, valid_from, valid_until)
    values (p_organization_id, p_feature, coalesce(p_from, rowbeat.now_()), p_until) returning id into v_id;
    return v_id;
end $$;
comment on function freight.grant_entitlement(uuid, text, timestamptz, timestamptz) is 'Entitles an organization to a feature.';

-- Promises: from now on the organization is not entitled, nor will it be. Returns how many entitlements that ended. Safe to repeat.
create or replace function freight.revoke_entitlement(p_organization_id uuid, p_feature text) returns integer language plpgsql volatile as $$
declare
    v_now    timestamptz := rowbeat.now_();
    v_ended  integer;
begin
    update freight.entitlement e set valid_until = greatest(e.valid_from, v_now)
    where e.organization_id = p_organization_id and e.feature = p_feature and (e.valid_until is null or e.valid_until > greatest(e.valid_from, v_now));
    get diagnostics v_ended = row_count;
    return v_ended;
end $$;
comment on function freight.revoke_entitlement(uuid, text) is 'Ends an organization''s entitlements to a feature.';

-- Whether an organization is entitled at an instant.
create or replace function freight.is_entitled(p_organization_id uuid, p_feature text, p_at timestamptz) returns boolean language sql stable as $$
    select exists (select from freight.entitlement e where e.organization_id = p_organization_id and e.feature = p_feature
        and e.valid_from <= p_at and (e.valid_until is null or e.valid_until > p_at))
$$;
comment on function freight.is_entitled(uuid, text, timestamptz) is 'Whether an organization is entitled to a feature at an instant.';

-- The conditions of the two rowbeat features: on while some organization holds both. Which one is asked again for each organization.
create or replace function freight.somebody_is_entitled() returns boolean language sql volatile as $$
    select exists (select from freight.organization o cross join (select rowbeat.now_() as at) n
        where freight.is_entitled(o.id, 'billing', n.at) and freight.is_entitled(o.id, 'auto_billing', n.at))
$$;
comment on function freight.somebody_is_entitled() is 'Whether some organization is entitled to auto billing.';

-- Promises: the daemons ask the features' conditions again as soon as an entitlement is committed.
create or replace function freight.announce_entitlement() returns trigger language plpgsql as $$
begin
    perform rowbeat.announce('definition');
    return null;
end $$;
comment on function freight.announce_entitlement() is 'Lets the daemons look at entitlements at once.';
create or replace trigger announce_entitlement after insert or update or delete on freight.entitlement
    for each statement execute function freight.announce_entitlement();
