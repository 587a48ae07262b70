-- The Jalali calendar, and what day, week and month are in the calendar in force. The functions that do the work take many days at once;
-- those for people take one. Text of keys has ASCII digits only.

-- The first day of a Jalali year. Leap years follow 33-year cycles that are broken in the years of the first list; the second has the leap days until
-- each of them. Right in years -61 to 3177, the official ones from 1304 on included.
create or replace function statement.new_year(p_year integer) returns date language plpgsql immutable as $$
declare
    v_breaks  constant integer[] := '{-61,9,38,199,426,686,756,818,1111,1181,1210,1635,2060,2097,2192,2262,2324,2394,2456,3178}';
    v_leaps   constant integer[] := '{-14,3,10,49,104,167,184,199,270,287,294,397,500,509,532,549,564,581,596,771}';
    v_i       constant integer := width_bucket(p_year, v_breaks);
    v_n       constant integer := p_year - v_breaks[v_i];
    v_length  constant integer := v_breaks[v_i + 1] - v_breaks[v_i];
    v_leap    constant integer := v_leaps[v_i] + v_n / 33 * 8 + (v_n % 33 + 3) / 4 + (v_length % 33 = 4 and v_length - v_n = 4)::integer;
begin
    return make_date(p_year + 621, 3, 20) + v_leap - ((p_year + 621) / 4 - ((p_year + 621) / 100 + 1) * 3 / 4 - 150);
end $$;
comment on function statement.new_year(integer) is 'The first day of a Jalali year.';

-- Jalali dates of days, with the first day of their years.
create or replace function statement.jalali(p_days date[])
returns table (gregorian date, year integer, month integer, day integer, new_year date) language plpgsql immutable as $$
declare
    v_from   integer := (select extract(year from min(d)) from unnest(p_days) d)::integer - 622;
    v_to     integer := (select extract(year from max(d)) from unnest(p_days) d)::integer - 621;
    v_first  date[] := array(select statement.new_year(y) from generate_series(v_from, v_to) y order by y);
begin
    return query
    select d.d, v_from + y.i - 1, m.month, case when m.n < 186 then m.n % 31 else (m.n - 186) % 30 end + 1, v_first[y.i]
    from unnest(p_days) d (d)
    cross join lateral (select width_bucket(d.d, v_first) as i) y
    cross join lateral (select d.d - v_first[y.i] as n) k
    cross join lateral (select k.n, case when k.n < 186 then k.n / 31 + 1 else (k.n - 186) / 30 + 7 end as month) m;
end $$;
comment on function statement.jalali(date[]) is 'Jalali dates of days.';

create or replace function statement.to_jalali(p_day date, out year integer, out month integer, out day integer) returns setof record
language plpgsql immutable rows 1 as $$
declare
    v_first  date;
    v_n      integer;
begin
    if p_day is null then
        return;
    end if;
    year := extract(year from p_day) - 621;
    v_first := statement.new_year(year);
    if p_day < v_first then
        year := year - 1;
        v_first := statement.new_year(year);
    end if;
    v_n := p_day - v_first;
    month := case when v_n < 186 then v_n / 31 + 1 else (v_n - 186) / 30 + 7 end;
    day := case when v_n < 186 then v_n % 31 else (v_n - 186) % 30 end + 1;
    return next;
end $$;
comment on function statement.to_jalali(date) is 'The Jalali date of a day.';

-- SQLSTATEs: RP400 (there is no such date).
create or replace function statement.from_jalali(p_year integer, p_month integer, p_day integer) returns date language plpgsql immutable as $$
declare
    v_day  date;
begin
    if p_year between 1 and 3176 and p_month between 1 and 12 and p_day between 1 and (case when p_month < 7 then 31 else 30 end) then
        v_day := statement.new_year(p_year) + least(p_month - 1, 6) * 31 + greatest(p_month - 7, 0) * 30 + p_day - 1;
    end if;
    -- 30 Esfand may be the next year's first day.
    if v_day is null or (p_month, p_day) = (12, 30) and v_day = statement.new_year(p_year + 1) then
        raise exception using errcode = 'RP400', message = format('There is no Jalali date %s/%s/%s.', p_year, p_month, p_day);
    end if;
    return v_day;
end $$;
comment on function statement.from_jalali(integer, integer, integer) is 'The day of a Jalali date.';

-- The buckets that days belong to in a calendar, three a day, with what the summaries' columns say of them.
create or replace function statement.buckets(p_calendar text, p_days date[])
returns table (day date, granularity text, bucket_start date, year integer, week integer, month integer) language plpgsql immutable as $$
begin
    if p_calendar = 'iso' then
        return query
        select d.d, g.granularity, g.bucket_start, g.year, g.week, g.month
        from unnest(p_days) d (d)
        cross join lateral (values
            ('daily', d.d, extract(year from d.d)::integer, null::integer, null::integer),
            ('weekly', date_trunc('week', d.d)::date, extract(isoyear from d.d)::integer, extract(week from d.d)::integer, null),
            ('monthly', date_trunc('month', d.d)::date, extract(year from d.d)::integer, null, extract(month from d.d)::integer)
        ) g (granularity, bucket_start, year, week, month);
        return;
    end if;
    return query
    select j.gregorian, g.granularity, g.bucket_start, j.year, g.week, g.month
    from statement.jalali(p_days) j
    cross join lateral (select (extract(isodow from j.gregorian)::integer + 1) % 7 as since, (extract(isodow from j.new_year)::integer + 1) % 7 as of_new_year) w
    cross join lateral (values
        ('daily', j.gregorian, null::integer, null::integer),
        ('weekly', greatest(j.gregorian - w.since, j.new_year), 1 + (j.gregorian - j.new_year + w.of_new_year) / 7, null),
        ('monthly', j.gregorian - j.day + 1, null, j.month)
    ) g (granularity, bucket_start, week, month);
end $$;
comment on function statement.buckets(text, date[]) is 'The buckets that days belong to.';

-- The texts of buckets in a calendar. Different buckets may have the same.
create or replace function statement.bucket_keys(p_calendar text, p_granularity text, p_starts date[])
returns table (bucket_start date, key text) language plpgsql immutable as $$
declare
    v_months  constant text[] := '{فروردین,اردیبهشت,خرداد,تیر,مرداد,شهریور,مهر,آبان,آذر,دی,بهمن,اسفند}';
begin
    return query
    select j.gregorian, case p_granularity
        when 'daily' then to_char(j.year, 'FM0000') || to_char(j.month, '"/"FM00') || to_char(j.day, '"/"FM00')
        when 'monthly' then v_months[j.month] || to_char(j.year, '" "FM0000')
        else format('هفته %s سال %s', case p_calendar when 'iso' then extract(week from j.gregorian)
            else 1 + (j.gregorian - j.new_year + (extract(isodow from j.new_year)::integer + 1) % 7) / 7 end, to_char(j.year, 'FM0000'))
    end
    from statement.jalali(p_starts) j;
end $$;
comment on function statement.bucket_keys(text, text, date[]) is 'The texts of buckets.';

-- SQLSTATEs: RP400.
create or replace function statement.refuse_granularity(p_granularity text) returns void language plpgsql immutable as $$
begin
    if p_granularity is null or p_granularity not in ('daily', 'weekly', 'monthly') then
        raise exception using errcode = 'RP400', message = 'The granularities are daily, weekly and monthly.';
    end if;
end $$;
comment on function statement.refuse_granularity(text) is 'Refuses what is no granularity.';

-- The first day of the bucket that an instant belongs to, in the calendar and zone in force. SQLSTATEs: RP400.
create or replace function statement.bucket_start(p_granularity text, p_at timestamptz) returns date language plpgsql stable as $$
begin
    perform statement.refuse_granularity(p_granularity);
    return (select b.bucket_start from statement.calendar c
        cross join lateral statement.buckets(c.calendar, array[(p_at at time zone c.zone)::date]) b
        where b.granularity = p_granularity and p_at is not null);
end $$;
comment on function statement.bucket_start(text, timestamptz) is 'The first day of the bucket that an instant belongs to.';

-- The text of a bucket, in the calendar in force. SQLSTATEs: RP400.
create or replace function statement.bucket_key(p_granularity text, p_bucket_start date) returns text language plpgsql stable as $$
begin
    perform statement.refuse_granularity(p_granularity);
    return (select k.key from statement.calendar c cross join lateral statement.bucket_keys(c.calendar, p_granularity, array[p_bucket_start]) k
        where p_bucket_start is not null);
end $$;
comment on function statement.bucket_key(text, date) is 'The text of a bucket.';
