-- What people and servers use in a day and in a month, and what their open turns have reserved.

local MONTH_MS = 62 * DAY_MS
-- Of a server's quota, in percent, when its admins are told.
local NEARLY = 80
local MOST_NOTICES = 1000

-- All direct messages of a platform without servers there count as one server.
local function server_of(thread)
  return string.match(thread, '^[^:]*:?[^:]*')
end

local LENGTHS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

-- The month of a day, such as '2026-11', and the first day of the next one. Until 2100, every fourth year has a day more.
local function month_of(day)
  local year, left = 1970 + 4 * math.floor(day / 1461), day % 1461
  while true do
    for month, length in ipairs(LENGTHS) do
      if month == 2 and year % 4 == 0 then length = 29 end
      if left < length then return string.format('%.0f-%02.0f', year, month), day - left + length end
      left = left - length
    end
    year = year + 1
  end
end

-- The day and the month, and the milliseconds until the next ones.
local function today()
  local now = now_ms()
  local day = math.floor(now / DAY_MS)
  local month, next_month = month_of(day)
  return day, DAY_MS - now % DAY_MS, month, next_month * DAY_MS - now
end

local function is_month(period)
  return string.find(period, '-', 1, true)
end

-- Includes the use of a person or a server that was forgotten since; see `hide_spent`.
local function spent_on(period, who, field)
  local salt = redis.call('GET', key('spent', 'salt', period))
  local hidden = salt and redis.call('HGET', key('spent', period, redis.sha1hex(salt .. who)), field)
  return natural(redis.call('HGET', key('spent', period, who), field)) + natural(hidden or 0)
end

-- Adds to what `who` has spent in a day or a month: `more` has numbers by field.
local function add_spent(period, who, more)
  local name, total = key('spent', period, who), 0
  for _, number in pairs(more) do total = total + number end
  -- A correction after its time must not restore the count without an expiry.
  if total < 0 and redis.call('EXISTS', name) == 0 then return end
  for field, number in pairs(more) do
    local sum = math.max(natural(redis.call('HGET', name, field)) + number, 0)
    redis.call('HSET', name, field, string.format('%.0f', sum))
  end
  redis.call('PEXPIRE', name, is_month(period) and MONTH_MS or SPENT_MS)
end

-- Has the admins told once in a period that a server has used so much of its quota: 'MS KIND PERCENT PERIOD SERVER USED
-- LIMIT', in one line.
local function note_notice(kind, percent, period, server, used, limit)
  local name = key('noticed', period, server)
  if redis.call('HSETNX', name, kind .. ' ' .. percent, '1') == 0 then return end
  redis.call('PEXPIRE', name, is_month(period) and MONTH_MS or SPENT_MS)
  local notices = prefix .. 'notices'
  local told = string.format('%.0f %s %d %s %s %.0f %.0f', now_ms(), kind, percent, period, server, used, limit)
  redis.call('ZADD', notices, now_ms(), told)
  redis.call('ZREMRANGEBYRANK', notices, 0, -MOST_NOTICES - 1)
  redis.call('PEXPIRE', notices, SPENT_MS)
end

-- What a new turn reserves; money is in millionths.
local function needs(quota)
  return {questions = 1, tokens = natural(quota.estimate), money = natural(quota.money_estimate)}
end

-- Refuses more than a person's quota: 'used KIND MILLISECONDS', until it renews; '' if there is room. `quota`
-- has a number for each limit. A single question may need more tokens or money than a quota has: the first one
-- of a day or a month is accepted if anything is left.
local function quota_refusal(person, thread, quota, more)
  local day, day_left, month, month_left = today()
  local server = server_of(thread)
  for _, one in ipairs({
    {'questions', 'questions', day, person, day_left},
    {'tokens', 'tokens', day, person, day_left},
    {'money', 'money', month, person, month_left},
    {'server_tokens', 'tokens', day, server, day_left},
    {'server_money', 'money', month, server, month_left},
  }) do
    local kind, field, period, who, left = unpack(one)
    local limit = tonumber(quota[kind])
    -- A question of which the price is not known is refused, too, once nothing is left.
    if limit and (more[field] > 0 or field == 'money' and more.questions > 0) then
      local used = spent_on(period, who, field)
      local is_first = used == 0 and limit > 0 and field ~= 'questions'
      local is_full = used + more[field] > limit or field == 'money' and used >= limit
      if who == server and used + more[field] >= limit * NEARLY / 100 then
        note_notice(field, NEARLY, period, server, used + more[field], limit)
      end
      if is_full and not is_first then
        if who == server then note_notice(field, 100, period, server, used, limit) end
        return string.format('used %s %.0f', kind, left)
      end
    end
  end
  return ''
end

-- Counts a call of a tool by a person. If they have made `limit` today, it is refused as by `quota_refusal`.
local function count_call(person, limit)
  local day, left = today()
  if spent_on(day, person, 'calls') >= tonumber(limit) then return string.format('used tools %.0f', left) end
  local name = key('spent', day, person)
  redis.call('HINCRBY', name, 'calls', 1)
  redis.call('PEXPIRE', name, SPENT_MS)
  return ''
end

-- The version before does not know `reserved_money`: without `reserved` it has ended the turn.
local function reserved_by(id)
  local day, questions, tokens = string.match(get(id, 'reserved') or '', '^(%d+) (%d+) (%d+)$')
  local month, money = string.match(day and get(id, 'reserved_money') or '', '^(%S+) (%d+)$')
  return {
    day = tonumber(day), questions = natural(questions), tokens = natural(tokens), month = month, money = natural(money),
  }
end

-- Adds to what a turn has reserved. All of it counts on the day and in the month of the first.
local function reserve(id, person, thread, more)
  local known, server = reserved_by(id), server_of(thread)
  local day, _, month = today()
  day, month = known.day or day, known.month or month
  local all = string.format('%.0f %.0f %.0f', day, known.questions + more.questions, known.tokens + more.tokens)
  set(id, 'reserved', all)
  for _, who in ipairs({person, server}) do
    add_spent(day, who, {questions = more.questions, tokens = more.tokens})
    if more.money > 0 then add_spent(month, who, {money = more.money}) end
  end
  if more.money > 0 then
    set(id, 'reserved_money', string.format('%s %.0f', month, known.money + more.money))
  elseif known.money == 0 then
    unset(id, 'reserved_money')
  end
end

-- Adds numbers to those of a field, which have blanks between them.
local function add_sums(name, field, more)
  local sums, known = {}, string.gmatch(redis.call('HGET', name, field) or '', '%d+')
  for at, number in ipairs(more) do sums[at] = string.format('%.0f', natural(known()) + number) end
  redis.call('HSET', name, field, table.concat(sums, ' '))
  redis.call('PEXPIRE', name, USAGE_MS)
end

-- The lines of a bill by model, as {tokens read, written, money, tokens without a price}; and all its money.
local function read_bill(bill)
  local found, total = {}, 0
  for _, line in ipairs(lines_of(bill or '')) do
    local read, written, money, model = string.match(line, '^~?(%d+) (%d+) (%S+) (.*)$')
    if read then
      local sums = found[model] or {0, 0, 0, 0}
      read, written = natural(read), natural(written)
      sums = {sums[1] + read, sums[2] + written, sums[3] + natural(money), sums[4]}
      if money == '-' then sums[4] = sums[4] + read + written end
      found[model], total = sums, total + natural(money)
    end
  end
  return found, total
end

-- Adds to the sums of a day, those of the server and those of the person there. Each has, by model, the questions, tokens
-- read and written, answers cut and failed, money in millionths, and tokens without a price.
local function count_usage(day, turn, questions, use, bill)
  local server, person = server_of(turn.thread), id_of(turn.person)
  if questions > 0 and not bill[use.model] then bill[use.model] = {0, 0, 0, 0} end
  for model, sums in pairs(bill) do
    local own = model == use.model and questions or 0
    local more = {own, sums[1], sums[2], use.is_cut and own or 0, use.is_failed and own or 0, sums[3], sums[4]}
    add_sums(key('usage', day, server), model, more)
    add_sums(key('usage_of', day, server), person .. ' ' .. model, more)
  end
end

-- Replaces the reservation of a turn by its use: the `tokens` and the `bill` of all its attempts, and the `model` that
-- has answered. A turn that does not count costs its person nothing. Without a number of tokens, the reservation stays. A
-- second call changes nothing.
local function settle(id, turn, counts, use)
  local reserved, bill, money = reserved_by(id), read_bill(use.bill)
  unset(id, 'reserved', 'reserved_money')
  if not reserved.day or not turn.thread then return end
  local server, used = server_of(turn.thread), natural(use.tokens)
  if not tonumber(use.tokens) then
    used, money = counts and reserved.tokens or 0, counts and reserved.money or 0
  end
  local questions = counts and 0 or -reserved.questions
  add_spent(reserved.day, turn.person, {questions = questions, tokens = (counts and used or 0) - reserved.tokens})
  add_spent(reserved.day, server, {questions = questions, tokens = used - reserved.tokens})
  local month = reserved.month or month_of(reserved.day)
  for who, spent in pairs({[turn.person] = counts and money or 0, [server] = money}) do
    if spent ~= reserved.money then add_spent(month, who, {money = spent - reserved.money}) end
  end
  count_usage(reserved.day, turn, use.model and reserved.questions or 0, use, bill)
end

-- Counts what the model has used beside a question, such as for a title. It is no question, and refused by no quota.
function verbs.count_use(thread, person, tokens, bill)
  local day, _, month = today()
  local lines, money = read_bill(bill)
  for _, who in ipairs({person, server_of(thread)}) do
    add_spent(day, who, {tokens = natural(tokens)})
    if money > 0 then add_spent(month, who, {money = money}) end
  end
  count_usage(day, {thread = thread, person = person}, 0, {}, lines)
end

-- What the record of a turn has of its use so far.
local function use_so_far(id)
  return {tokens = natural(get(id, 'used')), bill = get(id, 'bill')}
end

-- Returns what a person, and all people of the server of a thread, have used today: {questions, tokens, tokens of the
-- server, ms until the next day, calls of tools}, and this month: {…, money of the person and of the server, ms until the
-- next month}.
function verbs.usage(person, thread)
  local day, left, month, month_left = today()
  local server = server_of(thread)
  return {
    spent_on(day, person, 'questions'), spent_on(day, person, 'tokens'), spent_on(day, server, 'tokens'), left,
    spent_on(day, person, 'calls'), spent_on(month, person, 'money'), spent_on(month, server, 'money'), month_left,
  }
end

-- Claims the next notice for the admins, for a minute: who sends it removes it. Returns it; false if there is none.
function verbs.claim_notice()
  local notices = prefix .. 'notices'
  local one = redis.call('ZRANGEBYSCORE', notices, '-inf', now_ms(), 'LIMIT', 0, 1)[1]
  if one then redis.call('ZADD', notices, now_ms() + 60000, one) end
  return one or false
end
