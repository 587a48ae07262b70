-- Texts as people type them, the shop's zone, and the rules of money.

-- A text without control characters and blanks around it.
create or replace function invoice.tidy(p_text text) returns text language sql immutable as $$
    select coalesce(btrim(regexp_replace(p_text, '[[:cntrl:]\u00a0]+', ' ', 'g')), '')
$$;
comment on function invoice.tidy(text) is 'A text without control characters and blanks around it.';

-- A JSON value as somebody would have typed it; blank for null.
create or replace function invoice.typed(p_value jsonb) returns text language sql immutable as $$
    select case jsonb_typeof(p_value) when 'number' then trim_scale((p_value #>> '{}')::numeric)::text else invoice.tidy(p_value #>> '{}') end
$$;
comment on function invoice.typed(jsonb) is 'A JSON value as it would be typed.';

-- Whether a text is a whole number, of a length that makes sense.
create or replace function invoice.is_whole(p_text text) returns boolean language sql immutable as $$
    select p_text ~ '^[+-]?[0-9]{1,40}$'
$$;
comment on function invoice.is_whole(text) is 'Whether a text is a whole number.';

-- Whether a text is an address of the form local@domain.tld.
create or replace function invoice.is_address(p_text text) returns boolean language sql immutable as $$
    select case when length(p_text) <= 254 and strpos(p_text, '@') <= 65 then p_text ~ '^[A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])$'
        else false end
$$;
comment on function invoice.is_address(text) is 'Whether a text looks like a mail address.';

-- The shop's time zone; UTC when the server does not know the one of the setting: neither a sale nor a mail fails for it.
create or replace function invoice.zone() returns text language plpgsql stable as $$
declare
    v_zone  text := rowbeat.read_setting('invoice', 'zone');
begin
    perform now() at time zone v_zone;
    return v_zone;
exception when invalid_parameter_value then
    return 'UTC';
end $$;
comment on function invoice.zone() is 'The shop''s time zone.';

-- Raises. SQLSTATEs: the one that is given.
create or replace function invoice.refuse(p_sqlstate text, p_message text) returns void language plpgsql volatile as $$
begin
    raise exception using errcode = p_sqlstate, message = p_message;
end $$;
comment on function invoice.refuse(text, text) is 'Refuses with a SQLSTATE and a message.';

-- Rounds to so many places, a half to the even neighbour; exact at any size.
create or replace function invoice.round_half_even(p_amount numeric, p_places integer) returns numeric language sql immutable strict as $$
    select case
        when p_amount in ('NaN', 'Infinity', '-Infinity') then p_amount
        when abs(s.scaled - trunc(s.scaled)) = 0.5 then round(2 * round(s.scaled * 0.5) * s.back, greatest(p_places, 0))
        else round(p_amount, p_places)
    end
    from (select case when p_amount in ('NaN', 'Infinity', '-Infinity') then 0 else p_amount * ('1e' || p_places)::numeric end as scaled,
        ('1e' || -p_places)::numeric as back) s
$$;
comment on function invoice.round_half_even(numeric, integer) is 'Rounds half to even.';

-- The change for an amount from the highest to the lowest value, as many of each as fit; what cannot be paid out is under remaining.
-- Greedy on purpose. p_values null: the enabled denominations.
create or replace function invoice.make_change(p_amount numeric, p_values integer[] default null) returns jsonb language plpgsql stable as $$
declare
    v_left    numeric := coalesce(p_amount, 0);
    v_value   integer;
    v_change  jsonb := '{}';
begin
    for v_value in
        select distinct v.value from (
            select u.value from unnest(p_values) u (value)
            union all
            select d.value from invoice.denomination d where p_values is null and d.is_enabled
        ) v where v.value > 0 order by v.value desc
    loop
        if v_left >= v_value then
            v_change := v_change || jsonb_build_object(v_value, div(v_left, v_value));
            v_left := mod(v_left, v_value);
        end if;
    end loop;
    return v_change || case when v_left > 0 then jsonb_build_object('remaining', trim_scale(v_left)) else '{}' end;
end $$;
comment on function invoice.make_change(numeric, integer[]) is 'Change for an amount, highest values first.';
