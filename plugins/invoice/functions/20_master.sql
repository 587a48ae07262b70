-- Masters: how they are kept, checked and removed. Values are as typed; null leaves a value as it is.

-- Promises: one customer for an address, whatever its letters' case. SQLSTATEs: RP400 (it is no address).
create or replace function invoice.keep_customer() returns trigger language plpgsql as $$
begin
    new.email := lower(invoice.tidy(new.email));
    if not invoice.is_address(new.email) then
        perform invoice.refuse('RP400', 'Enter a valid email address.');
    end if;
    return new;
end $$;
comment on function invoice.keep_customer() is 'Keeps addresses of customers in small letters.';
create or replace trigger keep_customer before insert or update of email on invoice.customer
    for each row execute function invoice.keep_customer();

-- Promises: the usual denominations are there; those that are already are left as they are. Returns how many were missing.
create or replace function invoice.seed_denominations() returns bigint language sql volatile as $$
    with added as (
        insert into invoice.denomination (value) values (500), (200), (100), (50), (20), (10), (5), (2), (1)
        on conflict (value) do nothing returning 1
    )
    select count(*) from added
$$;
comment on function invoice.seed_denominations() is 'Adds the usual denominations that are missing.';

-- A text that has to be there and fit. SQLSTATEs: RP400.
create or replace function invoice.read_text(p_label text, p_text text, p_longest integer) returns text language plpgsql immutable as $$
declare
    v_text  text := invoice.tidy(p_text);
begin
    if v_text = '' then
        perform invoice.refuse('RP400', format('%s is required.', p_label));
    elsif length(v_text) > p_longest then
        perform invoice.refuse('RP400', format('%s is too long.', p_label));
    end if;
    return v_text;
end $$;
comment on function invoice.read_text(text, text, integer) is 'A text of a form.';

-- A number that is not negative, with so many decimals at most. SQLSTATEs: RP400.
create or replace function invoice.read_number(p_label text, p_text text, p_places integer, p_most numeric) returns numeric language plpgsql immutable as $$
declare
    v_text    text := invoice.read_text(p_label, p_text, 60);
    v_number  numeric;
begin
    if v_text !~ '^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)$' then
        perform invoice.refuse('RP400', format('%s must be a number.', p_label));
    end if;
    v_number := v_text::numeric;
    if v_number < 0 then
        perform invoice.refuse('RP400', format('%s cannot be negative.', p_label));
    elsif v_number <> round(v_number, p_places) then
        perform invoice.refuse('RP400', case p_places when 0 then format('%s must be a whole number.', p_label)
            else format('%s can have %s decimal places.', p_label, p_places) end);
    elsif v_number > p_most then
        perform invoice.refuse('RP400', format('%s is too large.', p_label));
    end if;
    return v_number;
end $$;
comment on function invoice.read_number(text, text, integer, numeric) is 'A number of a form.';

-- The status of a form: everything but what says no is enabled.
create or replace function invoice.read_status(p_text text, p_before boolean) returns boolean language sql immutable as $$
    select case when p_text is null then coalesce(p_before, true) else lower(invoice.tidy(p_text)) not in ('false', '0', 'off', 'no', 'disabled') end
$$;
comment on function invoice.read_status(text, boolean) is 'The status of a form.';

-- Adds a product, or changes the one with this id. Returns its id. SQLSTATEs: RP400, RP404, RP409.
create or replace function invoice.save_product(p_id bigint, p_values jsonb) returns bigint language plpgsql volatile as $$
declare
    v_row  invoice.product;
begin
    if p_id is not null then
        select * into v_row from invoice.product p where p.id = p_id for update;
        if not found then
            perform invoice.refuse('RP404', format('Product %s does not exist.', p_id));
        end if;
    end if;
    v_row.name := invoice.read_text('Product Name', coalesce(p_values ->> 'name', v_row.name), 200);
    v_row.code := invoice.read_text('Product Code', coalesce(p_values ->> 'code', v_row.code), 50);
    v_row.price := invoice.read_number('Unit Price', coalesce(p_values ->> 'price', v_row.price::text), 2, 99999999.99);
    v_row.tax_percent := invoice.read_number('Tax Percentage', coalesce(p_values ->> 'tax_percent', v_row.tax_percent::text), 2, 999.99);
    v_row.stock := invoice.read_number('Available Stock', coalesce(p_values ->> 'stock', v_row.stock::text), 0, 2147483647);
    v_row.is_enabled := invoice.read_status(p_values ->> 'is_enabled', v_row.is_enabled);
    if p_id is null then
        insert into invoice.product (name, code, price, tax_percent, stock, is_enabled)
        values (v_row.name, v_row.code, v_row.price, v_row.tax_percent, v_row.stock, v_row.is_enabled) returning id into v_row.id;
    else
        update invoice.product p set name = v_row.name, code = v_row.code, price = v_row.price, tax_percent = v_row.tax_percent,
            stock = v_row.stock, is_enabled = v_row.is_enabled
        where p.id = p_id;
    end if;
    return v_row.id;
exception when unique_violation then
    perform invoice.refuse('RP409', 'Product Code already exists.');
end $$;
comment on function invoice.save_product(bigint, jsonb) is 'Adds or changes a product.';

-- The same for a denomination.
create or replace function invoice.save_denomination(p_id bigint, p_values jsonb) returns bigint language plpgsql volatile as $$
declare
    v_row  invoice.denomination;
begin
    if p_id is not null then
        select * into v_row from invoice.denomination d where d.id = p_id for update;
        if not found then
            perform invoice.refuse('RP404', format('Denomination %s does not exist.', p_id));
        end if;
    end if;
    v_row.value := invoice.read_number('Denomination Value', coalesce(p_values ->> 'value', v_row.value::text), 0, 2147483647);
    v_row.is_enabled := invoice.read_status(p_values ->> 'is_enabled', v_row.is_enabled);
    if v_row.value = 0 then
        perform invoice.refuse('RP400', 'Denomination Value must be greater than zero.');
    elsif p_id is null then
        insert into invoice.denomination (value, is_enabled) values (v_row.value, v_row.is_enabled) returning id into v_row.id;
    else
        update invoice.denomination d set value = v_row.value, is_enabled = v_row.is_enabled where d.id = p_id;
    end if;
    return v_row.id;
exception when unique_violation then
    perform invoice.refuse('RP409', 'Denomination Value already exists.');
end $$;
comment on function invoice.save_denomination(bigint, jsonb) is 'Adds or changes a denomination.';

-- The same for a customer. A new name leaves a trace.
create or replace function invoice.save_customer(p_id bigint, p_values jsonb) returns bigint language plpgsql volatile as $$
declare
    v_row   invoice.customer;
    v_name  text;
begin
    if p_id is not null then
        select * into v_row from invoice.customer c where c.id = p_id for update;
        if not found then
            perform invoice.refuse('RP404', format('Customer %s does not exist.', p_id));
        end if;
    end if;
    v_name := invoice.read_text('Customer Name', coalesce(p_values ->> 'name', v_row.name), 200);
    v_row.email := lower(invoice.read_text('Customer Email', coalesce(p_values ->> 'email', v_row.email), 1000));
    v_row.is_enabled := invoice.read_status(p_values ->> 'is_enabled', v_row.is_enabled);
    if p_id is null then
        insert into invoice.customer (name, email, is_enabled) values (v_name, v_row.email, v_row.is_enabled) returning id into v_row.id;
    else
        update invoice.customer c set name = v_name, email = v_row.email, is_enabled = v_row.is_enabled where c.id = p_id;
        insert into invoice.customer_name_change (customer_id, old_name, new_name) select p_id, v_row.name, v_name where v_row.name <> v_name;
    end if;
    return v_row.id;
exception when unique_violation then
    perform invoice.refuse('RP409', 'Customer Email already exists.');
end $$;
comment on function invoice.save_customer(bigint, jsonb) is 'Adds or changes a customer.';

-- Promises: the product is gone. SQLSTATEs: RP404, RP409 (an invoice has it).
create or replace function invoice.delete_product(p_id bigint) returns void language plpgsql volatile as $$
declare
    v_name  text := (select p.name from invoice.product p where p.id = p_id);
begin
    delete from invoice.product p where p.id = p_id;
    if not found then
        perform invoice.refuse('RP404', format('Product %s does not exist.', p_id));
    end if;
exception when foreign_key_violation or restrict_violation then
    perform invoice.refuse('RP409', format('Cannot delete %s: it is used by invoices.', v_name));
end $$;
comment on function invoice.delete_product(bigint) is 'Removes a product that no invoice has.';
