-- Commands: rowbeat app freight <command>. Each is one transaction; a refused one leaves nothing behind.

-- The catalogue of intervals and the two schedules, where they are missing.
create or replace function freight.setupcelerybeat(arguments jsonb) returns setof text language plpgsql volatile as $$
declare
    v_intervals  integer;
    v_schedules  integer;
begin
    insert into freight.interval_schedule (every, period)
    select g, p.period from (values ('microseconds', 999), ('minutes', 59), ('hours', 23), ('days', 6)) p (period, most)
    cross join lateral generate_series(1, p.most) g
    order by 2, 1 on conflict do nothing;
    get diagnostics v_intervals = row_count;
    insert into rowbeat.schedule (name, definition, spec, start_at, overlap, catch_up, requires) values
        ('send_expired_rates_notification', 'dispatch.tasks.send_expired_rates_notification', 'every 1 day', now(), 'skip', 'last', '{}'),
        ('auto_mass_order_billing', 'auto_mass_billing_for_all_orgs', 'every 15 minutes', now(), 'skip', 'skip', '{freight.billing,freight.auto_billing}')
    on conflict (name) do nothing;
    get diagnostics v_schedules = row_count;
    return next case when v_intervals + v_schedules > 0 then 'Celery beat configurations created successfully.'
        else 'Celery beat configurations already exist.' end;
end $$;
comment on function freight.setupcelerybeat(jsonb) is 'Fills in the catalogue of intervals and the schedules.';

-- The organization of a name, as it is stored.
create or replace function freight.find_organization(p_name text) returns freight.organization language sql stable as $$
    select o.* from freight.organization o where lower(o.name) = lower(trim(p_name))
$$;
comment on function freight.find_organization(text) is 'The organization of this name, regardless of case.';

-- Promises: the user exists with profile and all; the password's hash is made by the daemon.
create or replace function freight.make_user(p_user freight.app_user, p_title text, p_function text, p_profile freight.user_profile) returns uuid
language plpgsql volatile as $$
declare
    v_title  uuid;
    v_id     uuid;
begin
    insert into freight.job_title (organization_id, name, job_function) values (p_user.organization_id, p_title, p_function)
    on conflict (organization_id, name) do nothing;
    select t.id into v_title from freight.job_title t where t.organization_id = p_user.organization_id and t.name = p_title;
    insert into freight.app_user (organization_id, username, email, password_hash, is_staff, is_superuser, job_title_id)
    values (p_user.organization_id, p_user.username, p_user.email, p_user.password_hash, p_user.is_staff, p_user.is_superuser, v_title)
    on conflict (username) do nothing returning id into v_id;
    if found then
        insert into freight.user_profile (organization_id, user_id, first_name, last_name, address_line_1, city, state, zip_code, phone_number)
        values (p_user.organization_id, v_id, p_profile.first_name, p_profile.last_name, p_profile.address_line_1, p_profile.city, p_profile.state,
            p_profile.zip_code, '123-456-7890');
    end if;
    return v_id;
end $$;
comment on function freight.make_user(freight.app_user, text, text, freight.user_profile) is 'Makes a user with job title and profile; null: the name is taken.';

-- Arguments: organization, count, password (a hash). SQLSTATEs: RP400, RP404.
create or replace function freight.createtestusers(arguments jsonb) returns setof text language plpgsql volatile as $$
declare
    v_organization  freight.organization := freight.find_organization(arguments ->> 'organization');
    v_count         text := coalesce(arguments ->> 'count', '');
    v_user          freight.app_user;
    v_profile       freight.user_profile;
    v_made          integer := 0;
begin
    if v_organization.id is null then
        raise exception using errcode = 'RP404', message = format('Organization %s does not exist.', arguments ->> 'organization');
    elsif trim(v_count) !~ '^[0-9]{1,6}$' then
        raise exception using errcode = 'RP400', message = format('%s is not a valid number.', v_count);
    end if;
    v_user.organization_id := v_organization.id;
    v_user.password_hash := arguments ->> 'password';
    v_user.is_staff := false;
    v_user.is_superuser := false;
    v_profile.first_name := 'Test';
    v_profile.address_line_1 := '123 Test Street';
    v_profile.city := 'Test City';
    v_profile.state := 'CA';
    v_profile.zip_code := '12345';
    for v_number in 0 .. trim(v_count)::integer - 1 loop
        v_user.username := 'testuser-' || v_number;
        v_user.email := format('testuser-%s@monta.io', v_number);
        v_profile.last_name := 'User-' || v_number;
        v_made := v_made + (freight.make_user(v_user, 'Test User', 'TEST', v_profile) is not null)::integer;
    end loop;
    return next format('Successfully created %s test users.', v_made);
end $$;
comment on function freight.createtestusers(jsonb) is 'Makes users for tests.';

-- Arguments: password (a hash), username, email, organization. SQLSTATEs: RP400, RP409.
create or replace function freight.createsystemuser(arguments jsonb) returns setof text language plpgsql volatile as $$
declare
    v_username      text := coalesce(arguments ->> 'username', 'sys');
    v_email         text := coalesce(arguments ->> 'email', 'system@monta.io');
    v_name          text := trim(coalesce(arguments ->> 'organization', 'sys'));
    v_organization  freight.organization;
    v_user          freight.app_user;
    v_profile       freight.user_profile;
begin
    if not freight.is_address(v_email) then
        raise exception using errcode = 'RP400', message = 'Invalid email address';
    elsif v_username !~ '^[A-Za-z0-9_]{1,30}$' then
        raise exception using errcode = 'RP400', message = 'Invalid username';
    elsif exists (select from freight.app_user u where u.username = lower(v_username)) then
        raise exception using errcode = 'RP409', message = format('User %s already exists', v_username);
    elsif exists (select from freight.app_user u where lower(u.email) = lower(v_email)) then
        raise exception using errcode = 'RP409', message = format('Email address %s is taken', v_email);
    end if;
    insert into freight.organization (name, scac_code) values (v_name, upper(left(v_name, 4))) on conflict (lower(name)) do nothing;
    v_organization := freight.find_organization(v_name);
    v_user.organization_id := v_organization.id;
    v_user.username := v_username;
    v_user.email := v_email;
    v_user.password_hash := arguments ->> 'password';
    v_user.is_staff := true;
    v_user.is_superuser := true;
    v_profile.first_name := 'System';
    v_profile.last_name := 'User';
    v_profile.address_line_1 := '1234 Main St.';
    v_profile.city := 'Anytown';
    v_profile.state := 'NY';
    v_profile.zip_code := '12345';
    if freight.make_user(v_user, 'System', 'SYS_ADMIN', v_profile) is null then
        raise exception using errcode = 'RP409', message = format('User %s already exists', v_username);
    end if;
    return next 'System user account created!';
end $$;
comment on function freight.createsystemuser(jsonb) is 'Makes the system user, and its organization where it is missing.';

-- Arguments: organization, feature, from, until, revoke. SQLSTATEs: RP400, RP404.
create or replace function freight.entitle(arguments jsonb) returns setof text language plpgsql volatile as $$
declare
    v_organization  freight.organization := freight.find_organization(arguments ->> 'organization');
    v_feature       text := arguments ->> 'feature';
begin
    if v_organization.id is null then
        raise exception using errcode = 'RP404', message = format('Organization %s does not exist.', arguments ->> 'organization');
    elsif coalesce((arguments ->> 'revoke')::boolean, false) then
        return next format('%s is no longer entitled to %s (%s ended).', v_organization.name, v_feature,
            freight.revoke_entitlement(v_organization.id, v_feature));
    else
        perform freight.grant_entitlement(v_organization.id, v_feature, (arguments ->> 'from')::timestamptz, (arguments ->> 'until')::timestamptz);
        return next format('%s is entitled to %s.', v_organization.name, v_feature);
    end if;
end $$;
comment on function freight.entitle(jsonb) is 'Entitles an organization to a feature, or ends that.';
