-- The language of specs, as far as accepting and refusing goes: the same as the daemon's parser (src/schedule), which alone computes times.
-- A test compares the two over random specs. Everything here is immutable; a refusal is 22023, names the field and the offending
-- text, and hints at what to write instead.

-- SQLSTATEs: 22023, always. Of an offending text no more than 80 characters are repeated.
create or replace function rowbeat.refuse_spec(p_where text, p_text text, p_problem text, p_hint text default null) returns void
language plpgsql immutable parallel safe set search_path = '' as $$
begin
    raise exception '%: `%` %', p_where, left(p_text, 80), p_problem using errcode = '22023', hint = coalesce(p_hint,
        case p_where
            when 'hour' then 'hours are 0-23' when 'day of month' then 'days are 1-31, `L` is the last one, `15W` the weekday nearest to the 15th'
            when 'month' then 'months are `1`-`12` or `jan`-`dec`'
            when 'day of week' then 'Monday is `1`, Sunday is `0` or `7`, or write `sun`-`sat`; `1#2` is the second Monday, `5L` the last Friday of the month'
            else 'write `*`, numbers 0-59, ranges and lists of them, steps such as `*/15`' end);
end $$;
comment on function rowbeat.refuse_spec(text, text, text, text) is 'Refuses a spec with 22023: where, the offending text, what is wrong, what to write instead.';

-- A number or a name within the bounds of a field of a crontab line. p_item is what a refusal shows.
create or replace function rowbeat.read_spec_value(p_field text, p_text text, p_item text) returns integer
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_first   integer := case when p_field in ('day of month', 'month') then 1 else 0 end;
    v_last    integer := case p_field when 'hour' then 23 when 'day of month' then 31 when 'month' then 12 when 'day of week' then 7 else 59 end;
    v_number  integer;
begin
    if p_text ~ '^[0-9]+$' then
        v_number := case when length(ltrim(p_text, '0')) < 9 then ('0' || ltrim(p_text, '0'))::integer else 1000 end;
        if v_number not between v_first and v_last then
            perform rowbeat.refuse_spec(p_field, p_text, format('is out of range %s-%s', v_first, v_last),
                case when length(p_text) = 4 and p_text !~ '^0' then 'there is no year field; for one date write `at 2027-01-31 09:00`' end);
        end if;
        return v_number;
    end if;
    v_number := case p_field
        when 'month' then array_position('{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}', lower(p_text collate "C"))
        when 'day of week' then array_position('{sun,mon,tue,wed,thu,fri,sat}', lower(p_text collate "C")) - 1 end;
    if v_number is null then
        perform rowbeat.refuse_spec(p_field, p_item, 'is not understood', case
            when p_item = '?' then 'write `*`'
            when p_item ~ '^[Hh]' then 'nothing is chosen by hash; write a number'
            when p_item ~* '^(cron_)?tz=' then 'leave it away; the time zone is a column of its own'
            when p_field = 'day of month' and p_item ~* '^(lw|wl|l-.*|[$])$' then '`L` is the last day; days are not counted from the end'
            when p_field = 'day of week' and p_item ~* '^(.+#l|l.+)$'
                then format('write `%sL` for the last such day of the month', trim(both '#lL' from p_item)) end);
    end if;
    return v_number;
end $$;
comment on function rowbeat.read_spec_value(text, text, text) is 'A number or name of a crontab field.';

-- The numbers of one item without `L`, `W` or `#`: `*`, a, a-b, or one of them with a step; Sunday is 0.
create or replace function rowbeat.read_spec_range(p_field text, p_item text) returns integer[]
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_range  text := split_part(p_item, '/', 1);
    v_step   text := substr(p_item, length(split_part(p_item, '/', 1)) + 2);
    v_from   integer;
    v_to     integer;
    v_by     integer := 1;
begin
    if v_range = '*' then
        v_from := case when p_field in ('day of month', 'month') then 1 else 0 end;
        v_to := case p_field when 'hour' then 23 when 'day of month' then 31 when 'month' then 12 when 'day of week' then 7 else 59 end;
    elsif strpos(v_range, '-') > 0 then
        v_from := rowbeat.read_spec_value(p_field, split_part(v_range, '-', 1), p_item);
        v_to := rowbeat.read_spec_value(p_field, substr(v_range, strpos(v_range, '-') + 1), p_item);
        if p_field = 'day of week' and v_from > 0 and v_range ~* '-sun$' then
            v_to := 7;
        end if;
    else
        v_from := rowbeat.read_spec_value(p_field, v_range, p_item);
        v_to := case when strpos(p_item, '/') = 0 then v_from when p_field = 'hour' then 23 when p_field = 'day of month' then 31
            when p_field = 'month' then 12 when p_field = 'day of week' then 7 else 59 end;
    end if;
    if strpos(p_item, '/') > 0 then
        if v_step !~ '^[0-9]+$' then
            perform rowbeat.refuse_spec(p_field, p_item, 'is not understood');
        elsif ltrim(v_step, '0') = '' then
            perform rowbeat.refuse_spec(p_field, p_item, 'has a step of 0', 'a step is at least 1');
        end if;
        v_by := case when length(ltrim(v_step, '0')) < 9 then ltrim(v_step, '0')::integer else 1000 end;
    end if;
    if v_from > v_to then
        perform rowbeat.refuse_spec(p_field, p_item, 'is a backward range', rowbeat.unroll_spec_range(p_field, v_range, v_from, v_to));
    elsif strpos(p_item, '/') > 0 and v_by > v_to - v_from then
        perform rowbeat.refuse_spec(p_field, p_item, format('has a step wider than its range %s-%s', v_from, v_to), format(
            'a step starts afresh with every larger unit; write `%s`, or an interval such as `every 90 minutes`', v_from));
    end if;
    return array(select case p_field when 'day of week' then n % 7 else n end from generate_series(v_from, v_to, v_by) n);
end $$;
comment on function rowbeat.read_spec_range(text, text) is 'The numbers of a plain item of a crontab field.';

-- What was probably meant by a backward range: the list of its values, by name if it was written so.
create or replace function rowbeat.unroll_spec_range(p_field text, p_range text, p_from integer, p_to integer) returns text
language sql immutable parallel safe set search_path = '' as $$
    select case
        when p_field = 'day of week' and p_from = 7 then format('write `0-%s`', p_to)
        when p_field = 'day of week' and p_to = 0 then format('write `%s-7`', p_from)
        when p_field in ('day of week', 'month') then 'write `' || string_agg(case when p_range ~* '[a-z]' then
            (case p_field when 'month' then '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}' else '{sun,mon,tue,wed,thu,fri,sat}' end::text[])
                [u.n + (p_field = 'day of week')::integer] else u.n::text end, ',' order by u.turn, u.n) || '`'
        else format('write `%s-%s,%s-%s`', p_from, max(u.n) filter (where u.turn = 1), min(u.n) filter (where u.turn = 2), p_to) end
    from (
        select n, case when n >= p_from then 1 else 2 end as turn
        from generate_series(case when p_field in ('day of month', 'month') then 1 else 0 end,
            case p_field when 'hour' then 23 when 'day of month' then 31 when 'month' then 12 when 'day of week' then 6 else 59 end) n
        where n >= p_from or n <= p_to
    ) u
$$;
comment on function rowbeat.unroll_spec_range(text, text, integer, integer) is 'The hint for a backward range: the list that was probably meant.';

-- A field's text as numbers. Special items are numbers of their own beyond the plain ones: of days of the month `L` is 100 and nW is
-- 200 + n; of days of the week n#k is 100 * k + n and nL is 600 + n.
create or replace function rowbeat.read_spec_field(p_field text, p_text text) returns integer[]
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_item    text;
    v_values  integer[] := '{}';
begin
    foreach v_item in array string_to_array(p_text, ',') loop
        if v_item = '' then
            perform rowbeat.refuse_spec(p_field, p_text, 'has an empty list item', 'write the items without surplus commas; `*` stands for every value');
        elsif p_field = 'day of month' and v_item in ('L', 'l') then
            v_values := v_values || 100;
        elsif p_field = 'day of month' and v_item ~ '^[0-9]+[Ww]$' then
            v_values := v_values || 200 + rowbeat.read_spec_value(p_field, left(v_item, -1), v_item);
        elsif p_field = 'day of week' and strpos(v_item, '#') > 0 then
            v_values := v_values || rowbeat.read_spec_value(p_field, split_part(v_item, '#', 1), v_item) % 7;
            if substr(v_item, strpos(v_item, '#') + 1) !~ '^0*[1-5]$' then
                perform rowbeat.refuse_spec(p_field, v_item, case when v_item ~ '#[0-9]+$' then 'counts beyond 1-5' else 'is not understood' end,
                    format('the first is `%1$s#1`, the last of every month is `%1$sL`', split_part(v_item, '#', 1)));
            end if;
            v_values[cardinality(v_values)] := v_values[cardinality(v_values)] + 100 * right(v_item, 1)::integer;
        elsif p_field = 'day of week' and v_item ~ '^[0-9A-Za-z]+[Ll]$' then
            v_values := v_values || 600 + rowbeat.read_spec_value(p_field, left(v_item, -1), v_item) % 7;
        else
            v_values := v_values || rowbeat.read_spec_range(p_field, v_item);
        end if;
    end loop;
    return v_values;
end $$;
comment on function rowbeat.read_spec_field(text, text) is 'A field of a crontab line as numbers, or a refusal.';

-- Whether a date is among the days of the month and of the week of a crontab line.
create or replace function rowbeat.is_spec_day(p_day date, p_month_days integer[], p_week_days integer[]) returns boolean
language sql immutable parallel safe set search_path = '' as $$
    select (d.day = any (p_month_days) or d.day = d.length and 100 = any (p_month_days)
            or exists (select from unnest(p_month_days) w (n) where w.n > 200 and w.n - 200 <= d.length and d.day = (
                select g.n from generate_series(1, d.length) g (n) where extract(isodow from d.first + (g.n - 1)) < 6
                order by abs(g.n - (w.n - 200)) limit 1)))
        and (d.week_day = any (p_week_days) or 100 * ((d.day + 6) / 7) + d.week_day = any (p_week_days)
            or d.day + 7 > d.length and 600 + d.week_day = any (p_week_days))
    from (
        select extract(day from p_day)::integer as day, extract(dow from p_day)::integer as week_day, date_trunc('month', p_day::timestamp)::date as first,
            extract(day from date_trunc('month', p_day::timestamp) + interval '1 month - 1 day')::integer as length
    ) d
$$;
comment on function rowbeat.is_spec_day(date, integer[], integer[]) is 'Whether a date matches both day fields of a crontab line.';

-- Promises: returns if a crontab line or alias is one that the daemon reads, and if its days ever come.
create or replace function rowbeat.check_crontab(p_spec text) returns void
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_fields      text[] := array_remove(string_to_array(translate(p_spec, E'\t', ' '), ' '), '');
    v_month_days  integer[];
    v_months      integer[];
    v_week_days   integer[];
begin
    if p_spec ~ '^@' then
        if lower(p_spec collate "C") <> all ('{@yearly,@annually,@monthly,@weekly,@daily,@midnight,@hourly}') then
            perform rowbeat.refuse_spec('alias', p_spec, 'is unknown', case
                when p_spec ~* '^@every' then 'write `every 15 minutes`'
                when p_spec ~* '^@reboot' then 'a start of the daemon is no time; write when it should run'
                else 'the aliases are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly' end);
        end if;
        return;
    elsif cardinality(v_fields) not in (5, 6) then
        perform rowbeat.refuse_spec('fields', p_spec, format('has %s, a crontab line has 5, or 6 with leading seconds', cardinality(v_fields)),
            case when cardinality(v_fields) = 7 then 'there is no year field; for one date write `at 2027-01-31 09:00`'
                else 'write minute, hour, day of month, month, day of week: `0 9 * * mon-fri`' end);
    elsif cardinality(v_fields) = 6 then
        perform rowbeat.read_spec_field('second', v_fields[1]);
        v_fields := v_fields[2:];
    end if;
    perform rowbeat.read_spec_field('minute', v_fields[1]), rowbeat.read_spec_field('hour', v_fields[2]);
    v_month_days := rowbeat.read_spec_field('day of month', v_fields[3]);
    v_months := rowbeat.read_spec_field('month', v_fields[4]);
    v_week_days := rowbeat.read_spec_field('day of week', v_fields[5]);
    if not exists (select from unnest(v_months) m (n), unnest(v_month_days) d (n)
        where d.n = 100 or d.n % 200 <= case when m.n = 2 then 29 when m.n in (4, 6, 9, 11) then 30 else 31 end)
    then
        perform rowbeat.refuse_spec('day of month', v_fields[3], format('never occurs in month `%s`', v_fields[4]),
            'write days that the month has; `L` is its last day');
    elsif (v_fields[3] like '*%' or v_fields[5] like '*%') and v_fields[3] <> '*' and v_fields[5] <> '*'
        -- Every kind of year is among these.
        and not exists (select from generate_series(timestamp '2000-01-01', timestamp '2027-12-31', interval '1 day') g (day)
            where extract(month from g.day) = any (v_months) and rowbeat.is_spec_day(g.day::date, v_month_days, v_week_days))
    then
        perform rowbeat.refuse_spec('day of month', v_fields[3], format('never falls on day of week `%s` in month `%s`', v_fields[5], v_fields[4]),
            'a day has to match both fields if one of them begins with `*`; list the days to match either');
    end if;
end $$;
comment on function rowbeat.check_crontab(text) is 'Refuses a crontab line that the daemon would not read.';

-- What follows `every`.
create or replace function rowbeat.check_interval(p_text text) returns void
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_words    text[] := array_remove(string_to_array(translate(p_text, E'\t', ' '), ' '), '');
    v_seconds  integer;
begin
    if cardinality(v_words) <> 2 then
        perform rowbeat.refuse_spec('interval', coalesce(nullif(p_text, ''), 'every'), 'is not a number and a unit', 'write `every 15 minutes`');
    end if;
    v_seconds := (array[1, 60, 3600, 86400, 604800])[array_position('{second,minute,hour,day,week}',
        regexp_replace(lower(v_words[2] collate "C"), 's$', ''))];
    if v_seconds is null then
        perform rowbeat.refuse_spec('interval', v_words[2], 'is not a unit', case
            when v_words[2] ~* '^month' then 'months differ in length; write `@monthly` or `0 0 1 * *`'
            when v_words[2] ~* '^year' then 'years differ in length; write `@yearly` or `0 0 1 1 *`'
            else 'the units are seconds, minutes, hours, days and weeks: `every 15 minutes`' end);
    elsif v_words[1] !~ '^[0-9]+$' then
        perform rowbeat.refuse_spec('interval', v_words[1], 'is not a whole number',
            'write a whole number, in a smaller unit if need be: `every 90 minutes`');
    elsif ltrim(v_words[1], '0') = '' then
        perform rowbeat.refuse_spec('interval', v_words[1], 'is no interval', 'the shortest one is `every 1 second`');
    elsif length(ltrim(v_words[1], '0')) > 10 or ltrim(v_words[1], '0')::bigint * v_seconds > 36525::bigint * 86400 then
        perform rowbeat.refuse_spec('interval', v_words[1], 'is too long',
            'an interval is a century at most; for one time write `at 2027-01-31 09:00`');
    end if;
end $$;
comment on function rowbeat.check_interval(text) is 'Refuses an interval that the daemon would not read.';

-- What follows `at`.
create or replace function rowbeat.check_moment(p_text text) returns void
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_date    text := substring(p_text from '^[^ \tTt]*');
    v_clock   text := btrim(substr(p_text, length(substring(p_text from '^[^ \tTt]*')) + 2), E' \t');
    v_time    text := btrim(substring(v_clock from '^[^Zz+-]*'), E' \t');
    v_offset  text := substr(v_clock, length(substring(v_clock from '^[^Zz+-]*')) + 1);
    v_year    integer;
    v_month   integer;
begin
    if v_date !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then
        perform rowbeat.refuse_spec('moment', p_text, 'does not begin with a date', 'write `at 2027-01-31 09:00`');
    end if;
    v_year := left(v_date, 4)::integer;
    v_month := substr(v_date, 6, 2)::integer;
    if v_month not between 1 and 12 or right(v_date, 2)::integer not between 1 and (case
        when v_month = 2 then 28 + (v_year % 4 = 0 and v_year % 100 <> 0 or v_year % 400 = 0)::integer
        when v_month in (4, 6, 9, 11) then 30 else 31 end)
    then
        perform rowbeat.refuse_spec('moment', v_date, 'is not in the calendar', 'write year, month and day: `2027-01-31`');
    elsif v_time = '' then
        perform rowbeat.refuse_spec('moment', p_text, 'has no time of day', format('write `at %s 00:00` for midnight', v_date));
    elsif v_time !~ '^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$' then
        perform rowbeat.refuse_spec('moment', v_time, 'is not a time of day',
            'write two digits each, 09:00 or 09:00:30, up to 23:59:59; a time zone''s name has a column of its own');
    elsif v_offset !~ '^([Zz]?|[+-](0[0-9]|1[0-5])(:[0-5][0-9])?)$' then
        perform rowbeat.refuse_spec('moment', v_offset, 'is not an offset', 'write `Z` or hours and minutes such as `+01:00`');
    end if;
end $$;
comment on function rowbeat.check_moment(text) is 'Refuses a moment that the daemon would not read.';

-- Promises: returns if the daemon reads this spec, in a time zone that it knows. Called by: the trigger of schedules; whoever wants to know.
-- SQLSTATEs: 22023.
create or replace function rowbeat.check_spec(p_spec text) returns void
language plpgsql immutable parallel safe set search_path = '' as $$
declare
    v_spec  text := btrim(p_spec, E' \t');
    v_word  text := lower(substring(v_spec from '^[^ \t]*') collate "C");
    v_rest  text := btrim(substr(v_spec, length(substring(v_spec from '^[^ \t]*')) + 2), E' \t');
begin
    if v_spec = '' then
        raise exception 'spec: empty' using errcode = '22023', hint = 'for example `0 9 * * mon-fri`, `@daily` or `every 15 minutes`';
    elsif v_word = 'every' then
        perform rowbeat.check_interval(v_rest);
    elsif v_word = 'at' then
        perform rowbeat.check_moment(v_rest);
    else
        perform rowbeat.check_crontab(v_spec);
    end if;
end $$;
comment on function rowbeat.check_spec(text) is 'Refuses a spec that the daemon would not read, with 22023 and a hint.';

-- Promises: returns if the server knows an IANA zone of exactly this name. The daemon's own zone data may lack it nevertheless: then the
--   schedule says so in last_error. A zone that a schedule has already was looked at before: the server's list takes a moment to read.
-- SQLSTATEs: 22023.
create or replace function rowbeat.check_time_zone(p_name text) returns void
language plpgsql stable set search_path = '' as $$
declare
    v_near  text;
begin
    if p_name = 'UTC' or exists (select from rowbeat.schedule s where s.time_zone = p_name) then
        return;
    elsif p_name !~ '^(posix|right)/|^(posixrules|localtime|Factory)$'
        and exists (select from pg_catalog.pg_timezone_names z where z.name = p_name) then
        return;
    end if;
    select z.name into v_near from pg_catalog.pg_timezone_names z where lower(z.name) = lower(p_name) and z.name !~ '^(posix|right)/';
    perform rowbeat.refuse_spec('time zone', p_name, 'is unknown',
        coalesce('did you mean `' || v_near || '`?', 'write an IANA name such as `Europe/Paris`, or `UTC`'));
end $$;
comment on function rowbeat.check_time_zone(text) is 'Refuses a time zone that the server does not know by this name.';

-- What can be known of the server's zone data: it does not tell its release, but knows or does not know some late changes.
create or replace function rowbeat.server_zone_data() returns text
language plpgsql stable set search_path = '' as $$
begin
    begin
        perform now() at time zone 'America/Coyhaique';
        return '2025b or later';
    exception when invalid_parameter_value then
        return case
            when timestamptz '2024-06-01 00:00Z' at time zone 'Asia/Almaty' = timestamp '2024-06-01 05:00' then '2024a to 2025a'
            else 'before 2024a' end;
    end;
end $$;
comment on function rowbeat.server_zone_data() is 'The release of the server''s zone data, as far as it can be told.';
