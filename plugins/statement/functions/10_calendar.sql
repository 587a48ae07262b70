-- The Jalali calendar, and what day, week and month are in the calendar in force. The functions that do the work take many days at once;
-- those for people take one. Text of keys has ASCII digits only.

-- The first day of Jalali years: of the one that begins in a Gregorian year. Leap years follow 33-year cycles that are broken in the years of the first
-- list; the second has the leap days until each of them. Right in years -61 to 3177, the official ones from 1304 on included.
create or replace function statement.new_years(p_years integer[]) returns table (year integer, first_day date) language plpgsql immutable as $$
declare
    v_breaks  constant integer[] := '{-61,9,38,199,426,686,756,818,1111,1181,1210,1635,2060,2097,2192,2262,2324,2394,2456,3178}';
    v_leaps   constant integer[] := '{-14,3,10,49,104,167,184,199,270,287,294,397,500,509,532,549,564,581,596,771}';
begin
    return query
    select y.y, make_date(y.y + 621, 3, 20) + v_leaps[b.i] + c.n / 33 * 8 + (c.n % 33 + 3) / 4
        + (c.length % 33 = 4 and c.length - c.n = 4)::integer
        - ((y.y + 621) / 4 - ((y.y + 621) / 100 + 1) * 3 / 4 - 150)
    from unnest(p_years) y (y)
    cross join lateral (select width_bucket(y.y, v_breaks) as i) b
    cross join lateral (select y.y - v_breaks[b.i] as n, v_breaks[b.i + 1] - v_breaks[b.i] as length) c;
end $$;
comment on function statement.new_years(integer[]) is 'First days of Jalali years.';

-- Jalali dates of days, with the first day of their years.
create or replace function statement.jalali(p_days date[])
returns table (gregorian date, year integer, month integer, day integer, new_year date) language plpgsql immutable as $$
declare
    v_from   integer := (select extract(year from min(d)) from unnest(p_days) d)::integer - 622;
    v_to     integer := (select extract(year from max(d)) from unnest(p_days) d)::integer - 621;
    v_first  date[] := array(select n.first_day from statement.new_years(array(select generate_series(v_from, v_to))) n order by n.year);
begin
    return query
    select d.d, v_from + y.i - 1, m.month, case when m.n < 186 then m.n % 31 else (m.n - 186) % 30 end + 1, v_first[y.i]
    from unnest(p_days) d (d)
    cross join lateral (select width_bucket(d.d, v_first) as i) y
    cross join lateral (select d.d - v_first[y.i] as n) k
    cross join lateral (select k.n, case when k.n < 186 then k.n / 31 + 1 else (k.n - 186) / 30 + 7 end as month) m;
end $$;
comment on function statement.jalali(date[]) is 'Jalali dates of days.';

create or replace function statement.to_jalali(p_day date) returns table (year integer, month integer, day integer) language plpgsql immutable as $$
begin
    return query select j.year, j.month, j.day from statement.jalali(array[p_day]) j where p_day is not null;
end $$;
comment on function statement.to_jalali(date) is 'The Jalali date of a day.';

-- SQLSTATEs: RP400 (there is no such date).
create or replace function statement.from_jalali(p_year integer, p_month integer, p_day integer) returns date language plpgsql immutable as $$
declare
    v_day  date;
begin
    if p_year not between 1 and 3176 or p_month not between 1 and 12 or p_day not between 1 and 31 then
        raise exception using errcode = 'RP400', message = format('There is no Jalali date %s/%s/%s.', p_year, p_month, p_day);
    end if;
    select n.first_day + least(p_month - 1, 6) * 31 + greatest(p_month - 7, 0) * 30 + p_day - 1 into v_day from statement.new_years(array[p_year]) n;
    if not exists (select from statement.to_jalali(v_day) j where (j.year, j.month, j.day) = (p_year, p_month, p_day)) then
        raise exception using errcode = 'RP400', message = format('There is no Jalali date %s/%s/%s.', p_year, p_month, p_day);
    end if;
    return v_day;
end $$;
comment on function statement.from_jalali(integer, integer, integer) is 'The day of a Jalali date.';

-- Days since the Saturday of a day's week.
create or replace function statement.days_since_saturday(p_day date) returns integer language sql immutable as $$
    select (extract(isodow from p_day)::integer + 1) % 7
$$;
comment on function statement.days_since_saturday(date) is 'Days since the Saturday of a day''s week.';

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
