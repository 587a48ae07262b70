-- The calendar, there and back, and a row through the totals.
do $$
begin
    assert (select array_agg(y) from generate_series(1390, 1437) y where statement.from_jalali(y + 1, 1, 1) - statement.from_jalali(y, 1, 1) = 366)
        = '{1391,1395,1399,1403,1408,1412,1416,1420,1424,1428,1432,1436}', 'leap years';
    assert statement.bucket_key('daily', '2030-03-20') = '1408/12/30', 'the last day of a leap year';
    assert statement.bucket_start('daily', '2024-03-19 20:30Z') = '2024-03-20', 'the night of the new year';
    assert statement.bucket_key('weekly', '2025-03-15') = 'هفته 53 سال 1403', 'the week before the new year';
    insert into statement.summary (granularity, bucket_start, merchant_id, total_amount, total_count) values ('monthly', '2024-06-21', '', 5, 1);
    assert (select (s.year, s.month, s.merchant_id is null) = (1403, 4, true) from statement.summary s), 'what is left out is filled in';
    assert (select p.key = 'تیر 1403' and p.value = 5 from statement.summary_points('monthly', 'amount') p), 'a point';
end $$;
