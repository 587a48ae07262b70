-- A paid sale gets one voucher, and one refund.
do $$
declare
    v_sale  uuid;
begin
    insert into hotspot.sale (full_name, phone_number, bundle_code) values ('plugin test', '0240000000', '3_GHS__2GB_(24hrs)') returning id into v_sale;
    insert into hotspot.voucher (username, password) values ('plugin-test', 'plugin-test');
    assert hotspot.record_payment(v_sale, 'SUCCESSFUL', 'plugin-test', null) = 'paid', 'paid';
    assert hotspot.claim_voucher(v_sale) = hotspot.claim_voucher(v_sale), 'one voucher';
    perform hotspot.refund(v_sale, 'because', 'clerk');
    begin
        perform hotspot.refund(v_sale, 'because', 'clerk');
        assert false, 'twice';
    exception when sqlstate 'RP409' then
        null;
    end;
end $$;
