-- Rows, bundles and refusals: what everything else here stands on.

-- Refuses: RP400 (bad input), RP404 (not there), RP409 (its state forbids it).
create or replace function hotspot.refuse(p_sqlstate text, p_message text) returns void language plpgsql volatile as $$
begin
    raise exception using errcode = p_sqlstate, message = p_message;
end $$;
comment on function hotspot.refuse(text, text) is 'Raises a refusal.';

-- Who acts: whoever the daemon let in, else the session's role.
create or replace function hotspot.actor() returns text language sql stable as $$
    select coalesce(nullif(current_setting('rowbeat.actor', true), ''), session_user::text)
$$;
comment on function hotspot.actor() is 'Who acts.';

-- Whether a recovery writes the rows: then they are as they were, and nothing is logged.
create or replace function hotspot.is_restoring() returns boolean language sql stable as $$
    select coalesce(current_setting('rowbeat.origin', true) = 'restore', false)
$$;
comment on function hotspot.is_restoring() is 'Whether the rows that are written come from the backup.';

create or replace function hotspot.zone() returns text language plpgsql stable as $$
declare
    v_zone  text := coalesce(rowbeat.read_setting('hotspot', 'zone'), 'Africa/Accra');
begin
    perform now() at time zone v_zone;
    return v_zone;
exception when invalid_parameter_value then
    return 'Africa/Accra';
end $$;
comment on function hotspot.zone() is 'The zone whose days count; of one that the server does not know, Ghana''s.';

-- Promises: created_at is set once, updated_at is the time of the last change. Rows of a recovery keep theirs.
create or replace function hotspot.touch() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        new.created_at := coalesce(new.created_at, rowbeat.now_());
        new.updated_at := coalesce(new.updated_at, new.created_at);
    elsif not hotspot.is_restoring() then
        new.created_at := old.created_at;
        new.updated_at := rowbeat.now_();
    end if;
    return new;
end $$;
comment on function hotspot.touch() is 'Keeps the times of a row.';
create or replace trigger touch before insert or update on hotspot.bundle for each row execute function hotspot.touch();
create or replace trigger touch before insert or update on hotspot.staff for each row execute function hotspot.touch();
create or replace trigger touch before insert or update on hotspot.checkout for each row execute function hotspot.touch();
create or replace trigger touch before insert or update on hotspot.sale for each row execute function hotspot.touch();
create or replace trigger touch before insert or update on hotspot.voucher for each row execute function hotspot.touch();
create or replace trigger touch before insert or update on hotspot.sms for each row execute function hotspot.touch();

-- A credential: a digit, four small letters, a digit. The random bytes are those of a UUID that are random.
create or replace function hotspot.make_credential() returns text language sql volatile as $$
    select get_byte(b, 0) % 10 || chr(97 + get_byte(b, 1) % 26) || chr(97 + get_byte(b, 2) % 26) || chr(97 + get_byte(b, 3) % 26)
        || chr(97 + get_byte(b, 4) % 26) || get_byte(b, 5) % 10
    from (select uuid_send(gen_random_uuid()) as b) r
$$;
comment on function hotspot.make_credential() is 'A user name or password such as 4wljb6.';

-- Promises: what a new sale takes from its bundle and what is generated is there, unless it was given. A user name is of one sale or voucher.
create or replace function hotspot.fill_sale() returns trigger language plpgsql as $$
begin
    if new.amount is null or new.data_label is null then
        select coalesce(new.amount, b.price), coalesce(new.data_label, b.data_label) into new.amount, new.data_label
        from hotspot.bundle b where b.code = new.bundle_code;
    end if;
    while new.hotspot_username is null loop
        new.hotspot_username := hotspot.make_credential();
        if exists (select from hotspot.sale s where s.hotspot_username = new.hotspot_username)
            or exists (select from hotspot.voucher v where v.username = new.hotspot_username) then
            new.hotspot_username := null;
        end if;
    end loop;
    new.hotspot_password := coalesce(new.hotspot_password, hotspot.make_credential());
    return new;
end $$;
comment on function hotspot.fill_sale() is 'Completes a new sale.';
create or replace trigger fill_sale before insert on hotspot.sale for each row execute function hotspot.fill_sale();

-- Whether a code is the one that setting test_bundle names, with or without its duration.
create or replace function hotspot.is_test_code(p_code text) returns boolean language sql stable as $$
    select coalesce(nullif(s.code, '') in (p_code, p_code || '_(24hrs)', regexp_replace(p_code, '_\(24hrs\)$', '')), false)
    from (select rowbeat.read_setting('hotspot', 'test_bundle') as code) s
$$;
comment on function hotspot.is_test_code(text) is 'Whether this is the test bundle of the moment.';

-- The bundles that are offered now; the test bundle needs no row before it is bought.
create or replace function hotspot.offered() returns table (code text, price numeric, data_label text, "position" integer) language sql stable as $$
    select b.code, b.price, b.data_label, b.position from hotspot.bundle b where b.is_active and not b.is_test
    union
    select s.code, split_part(s.code, '_GHS__', 1)::numeric(10, 2), split_part(s.code, '_GHS__', 2), 2147483647
    from (select rowbeat.read_setting('hotspot', 'test_bundle') as code) s
    where s.code ~ '^[0-9]{1,6}(\.[0-9]{1,2})?_GHS__.' and not exists (select from hotspot.bundle b where b.code = s.code and not (b.is_active and b.is_test))
    order by 4, 2, 1
$$;
comment on function hotspot.offered() is 'The bundles that can be bought now.';

-- Promises: the code under which an offered bundle is sold; the test bundle has a row from now on. Null: it is not offered.
create or replace function hotspot.find_bundle(p_code text) returns text language plpgsql volatile as $$
declare
    v_code  text;
begin
    select o.code into v_code from hotspot.offered() o
    where o.code = p_code or hotspot.is_test_code(o.code) and hotspot.is_test_code(p_code) order by o.code = p_code desc limit 1;
    if hotspot.is_test_code(v_code) then
        insert into hotspot.bundle (code, is_test, position) values (v_code, true, 1000) on conflict do nothing;
    end if;
    return v_code;
end $$;
comment on function hotspot.find_bundle(text) is 'The offered bundle that a code means.';

-- How data reads in an SMS.
create or replace function hotspot.data_text(p_data_label text) returns text language sql immutable as $$
    select translate(replace(p_data_label, '_(', '  valid for '), '_()[]{}', ' ')
$$;
comment on function hotspot.data_text(text) is 'A bundle''s data as people read it.';

create or replace function hotspot.is_sellable(p_price numeric) returns boolean language sql immutable as $$
    select coalesce(p_price between 3 and 10 or p_price between 11 and 20 or p_price > 20 and p_price < 500, false)
$$;
comment on function hotspot.is_sellable(numeric) is 'Whether a price is in one of the ranges of the calculator.';

-- At least one decimal, and no zeros behind it.
create or replace function hotspot.decimal_text(p_number numeric) returns text language sql immutable as $$
    select case when scale(trim_scale(p_number)) = 0 then round(p_number, 1) else trim_scale(p_number) end::text
$$;
comment on function hotspot.decimal_text(numeric) is 'A number with one decimal at least.';

-- Decimal all the way: megabytes at price / 3 of the base, as MB up to three digits before the point, else as GB.
create or replace function hotspot.data_allocation(p_prices numeric[], p_base numeric) returns table (price numeric, code text) language sql immutable as $$
    select m.price, trim_scale(m.price) || '_GHS__' || case when m.mb < 1000 then hotspot.decimal_text(m.mb) || 'MB'
        else hotspot.decimal_text(round(m.mb / 1000, 2)) || 'GB' end
    from (select p.price, p.n, round(p.price * p_base / 3, 2) as mb from unnest(p_prices) with ordinality p (price, n)
        where hotspot.is_sellable(p.price)) m
    where p_base is not null order by m.n
$$;
comment on function hotspot.data_allocation(numeric[], numeric) is 'Bundle codes for prices, by the megabytes that three cedis buy.';
