-- A turn ends.

-- The words with small and great letters, such as "GitHub", in small ones: a search knows the other spellings.
local function mixed_words(text)
  local known, found = {}, {}
  for token in string.gmatch(text, '%S+') do
    local word = string.match(token, '%w.*') or ''
    if not known[word] and string.find(word, '.%u') and string.find(word, '%l') then
      known[word] = true
      table.insert(found, string.lower(word))
    end
  end
  return table.concat(found, ' ')
end

-- A regenerated turn is still the last one, because nothing else ran in its thread. The oldest exchanges are dropped
-- beyond the limits, and what was read of files before them; the newest stays.
local function remember(id, thread, exchange, limits)
  local history = key('history', thread)
  if limits.history == 0 then return redis.call('DEL', history) end
  drop_exchange(id)
  if exchange.question == get(id, 'text') then exchange.question, exchange.question_files = nil, nil end
  for field, value in pairs(exchange) do set(id, field, value) end
  set(id, 'mixed', mixed_words(get(id, 'answer') .. ' ' .. get(id, 'text')))
  set(id, 'bytes', bytes_of(id, 'text', 'question', 'answer', 'mixed', 'files', 'question_files'))
  if last_remembered(thread) ~= id then redis.call('RPUSH', history, id) end
  local size, of_files, ids = 0, 0, redis.call('LRANGE', history, 0, -1)
  for at = #ids, 1, -1 do
    local one = ids[at]
    size, of_files = size + natural(get(one, 'bytes')), of_files + bytes_of_files(one)
    if at < #ids and of_files > limits.file_bytes then redis.call('DEL', key('files', one)) end
    if at < #ids and (size > limits.history_bytes or #ids - at >= limits.history) then
      redis.call('LREM', history, 1, one)
      drop_exchange(one)
      redis.call('DEL', key('files', one), key('thoughts', one))
    else
      keep_in(thread, key('turn', one), key('context', one), key('files', one), key('ratings', one), key('thoughts', one))
      -- A question that is deleted is found by its record.
      for _, joined in ipairs(ids_of(one, 'joined')) do keep_in(thread, key('turn', joined)) end
      note_context(one, thread)
    end
  end
  keep_versions(thread)
  keep_in(thread, history, key('speakers', thread), key('seen', thread))
end

-- The questions of joined turns stay in their records, so that they can be edited one by one.
local function end_joined(id, turn, outcome, counts, use, limits)
  for _, one in ipairs(ids_of(id, 'joined')) do
    if record(one).state == 'queued' then
      settle(one, turn, counts, {tokens = 0, model = use.model, is_cut = use.is_cut, is_failed = use.is_failed})
      set(one, 'state', outcome, 'message_ids', '', 'shown', '')
      unset(one, 'position', 'attempts', 'edited_since_take', 'stop', 'instructions')
      keep_ended(one, turn.thread, limits)
      leave_thread(one, turn)
      count_kept(one, turn.person, limits.person_bytes)
    end
  end
end

-- Whether a turn has no answer, and no other one has been answered since.
local function may_be_retried(id, thread)
  return not has(id, 'forget') and get(id, 'after') == last_remembered(thread)
end

-- Notes which reply is the thread's newest when a turn ends, and returns the turn whose reply is older and needs other
-- buttons, if any: the newest before, or this turn.
local function note_newest(id, thread)
  local name = key('newest', thread)
  local newest = redis.call('GET', name)
  if last_message(id) == '' then return end
  if newest and newest ~= id then
    -- A question above was answered anew, and the newest one has failed and can be retried.
    local has_ended_before = has(id, 'kept')
    if has_ended_before and may_be_retried(newest, thread) or has(id, 'forget') then return id end
  end
  redis.call('SET', name, id, 'PX', keep_ms(thread))
  return newest ~= id and newest
end

-- The turn notes after which one it came: the thread's last remembered turn.
local function end_without_exchange(id, thread)
  local last = last_remembered(thread)
  set(id, 'after', last)
  local line = redis.call('LINDEX', key('context', id), -1) or ''
  if last == '' and string.sub(line, 1, 8) ~= 'message\n' then note_seen(thread) end
end

local function store_outcome(id, outcome)
  set(id, 'state', outcome)
  unset(id, 'worker', 'position', 'attempts', 'max_progress', 'said', 'below', 'outcome', 'by', 'removed', 'used',
    'bill', 'stop', 'instructions')
  drop_steps(id)
end

-- Returns as `finish` does. `limits` are by server, with '' for all others and '?' for a damaged thread.
local function end_turn(id, turn, outcome, exchange, use, limits)
  local thread, forgotten = turn.thread, get(id, 'forget')
  limits = limits[string.match(thread, '^[^:]*:([^:]*):[^:]*:[^:]*$') or '?'] or limits['']
  -- A question that only failed costs nothing.
  local counts = exchange or outcome ~= 'failed' and outcome ~= 'dead'
  use.is_cut, use.is_failed = get(id, 'ended') == 'cut', outcome == 'failed' or outcome == 'dead'
  end_joined(id, turn, outcome, counts, use, limits)
  settle(id, turn, counts, use)
  if forgotten == WITH_ANSWER then set(id, 'shown', '') end
  if not exchange then
    end_without_exchange(id, thread)
  elseif not forgotten then
    remember(id, thread, exchange, limits)
    unset(id, 'previous_answer', 'after')
  end
  -- Without text, a turn that was given up may not have its apology yet.
  if outcome == 'dead' and get(id, 'shown') ~= '' then note_late_writes(id, get(id, 'message_ids')) end
  store_outcome(id, outcome)
  if forgotten then drop_words(id) end
  keep_ended(id, thread, limits)
  local older = note_newest(id, thread)
  if forgotten == AFTER_REPAIR then repair_buttons(id, thread) end
  if tonumber(turn.fence) > 1 or outcome == 'dead' then schedule_repair(id, thread, limits.late_write_ms) end
  leave_thread(id, turn)
  -- A previous answer that stays is counted already.
  if exchange or not has(id, 'answer') then count_kept(id, turn.person, limits.person_bytes) end
  return older and {older} or 'ok'
end

-- A repeated call, whose first answer was lost, changes nothing. `progress`, `exchange` and `limits` are JSON: fields
-- of the record as the turn ends; the `question`, `answer` and `model` that are remembered, or ''; and after how long
-- a write of an earlier attempt has arrived, or never will (`late_write_ms`), with the limits of storage, by server.
-- `use` is JSON: the `tokens` of all attempts, if the number is known, their `bill`, and the `model` that has answered.
-- Returns 'ok', or {the turn whose reply is no longer the newest}.
function verbs.finish(id, fence, outcome, progress, exchange, use, limits)
  local turn = record(id)
  if turn.fence == fence and turn.state == outcome or is_record_lost(id) then return 'ok' end
  if not holds(turn, fence) then return 'lost' end

  progress, use = decoded(progress), decoded(use)
  -- Messages that were posted while the store was away are new here.
  store_thoughts(id, turn.thread, progress)
  set(id, 'message_ids', progress.message_ids, 'shown', progress.shown, 'cut', progress.cut)
  note_posted(id, turn.thread)
  if has(id, 'edited_since_take') then
    set(id, 'used', natural(use.tokens), 'bill', use.bill or '')
    return 'edited_since_take'
  end
  set(id, 'ended', progress.ended)
  return end_turn(id, turn, outcome, exchange ~= '' and decoded(exchange), use, decoded(limits))
end

-- Ends a turn with an unreadable record as dead. It is found by its thread, because a client may be unable to
-- write its id; its position tells it from the next one there, which a call that comes again finds.
function verbs.give_up(thread, fence, position, limits)
  local id = redis.call('LINDEX', key('mailbox', thread), 0)
  if not id or not holds(record(id), fence) or (get(id, 'position') or '') ~= position then return 'lost' end
  set(id, 'ended', 'failed', 'message_ids', get(id, 'message_ids') or '', 'shown', get(id, 'shown') or '')
  local use = use_so_far(id)
  use.model = get(id, 'by') or ''
  return end_turn(id, record(id), 'dead', nil, use, decoded(limits))
end

-- Ends all open turns of a restored store without a word: people were answered since. What the store would write over
-- these answers goes, too: messages of open turns, and the repairs of `platforms`. `moment` (ms) is noted: what was
-- said up to then is not received any more. If `is_live` is '1' and workers have leases, it changes nothing and
-- returns their number as a negative one; else how many turns it has ended. A second call ends nothing more.
-- A server that had removed the bot may have it again, and its job be overdue: such jobs begin `removed_ms` from now, so
-- that the gateways can cancel them.
function verbs.end_all(moment, is_live, removed_ms, limits, ...)
  local open, leased, ended = redis.call('ZRANGE', key('open'), 0, -1), 0, 0
  for _, id in ipairs(open) do
    local turn = record(id)
    local lease = turn.state == 'running' and redis.call('ZSCORE', key('due', platform_of(turn.thread)), turn.thread)
    if lease and tonumber(lease) > now_ms() then leased = leased + 1 end
  end
  if is_live == '1' and leased > 0 then return -leased end
  limits = decoded(limits)
  for _, id in ipairs(open) do
    local turn = record(id)
    if is_open(turn) and turn.thread then
      -- An answer that was to be written anew stays.
      local previous = get(id, 'previous_answer')
      set(id, 'message_ids', '', 'shown', previous or '', 'cut', '', 'ended', previous and '' or 'failed')
      unset(id, 'previous_answer', 'edited_since_take')
      settle(id, turn, false, use_so_far(id)) -- costs its person nothing
      end_turn(id, turn, previous and 'done' or 'failed', nil, use_so_far(id), limits)
      ended = ended + 1
    end
  end
  for _, platform in ipairs({...}) do
    for _, id in ipairs(redis.call('ZRANGE', key('repairs', platform), 0, -1)) do end_repair(platform, id) end
  end
  for _, who in ipairs(redis.call('ZRANGE', key('forgetting'), 0, -1)) do
    if string.sub(who, 1, 7) == 'server:' then redis.call('ZADD', key('forgetting'), now_ms() + removed_ms, who) end
  end
  local latest = math.max(natural(redis.call('GET', key('restored'))), natural(moment))
  redis.call('SET', key('restored'), string.format('%.0f', latest), 'PX', SPENT_MS)
  return ended
end
