-- Forgets turns, and resets threads.

local function leave_out(id, lead)
  local others = {}
  for _, one in ipairs(ids_of(lead, 'joined')) do
    if one ~= id then table.insert(others, one) end
  end
  set(lead, 'joined', table.concat(others, '\n'))
  drop_files(lead, id)
  unset(id, 'lead')
  if is_open(record(lead)) then ask_for_anew(lead) end
end

-- Those that wait are answered by themselves.
local function separate(lead)
  for _, one in ipairs(ids_of(lead, 'joined')) do unset(one, 'lead') end
  unset(lead, 'joined')
end

-- A turn that has ended is forgotten with those that were answered together with it.
local function forget_joined(lead)
  redis.call('HSETNX', key('turn', lead), 'forget', QUESTION_ONLY)
  drop_words(lead)
  for _, one in ipairs(ids_of(lead, 'joined')) do drop_words(one) end
end

-- With AFTER_REPAIR, an answer whose buttons are to go stays until then.
local function drop_forgotten_answer(id, how)
  local turn = record(id)
  if not has(id, 'forget') then return end
  set(id, 'forget', how)
  unset(id, 'previous_answer')
  local has_repair = how == AFTER_REPAIR and redis.call('ZSCORE', key('repairs', platform_of(turn.thread)), id)
  if not is_open(turn) and not has_repair then set(id, 'shown', '') end
end

-- Whether a message shows the answer of a turn that is open or remembered, and no worker has deleted it.
local function is_of_answer(message, id)
  local is_there = is_open(record(id)) or has(id, 'answer')
  return is_there and contains(ids_of(id, 'message_ids'), message) and not contains(ids_of(id, 'removed'), message)
end

-- The turns of the first arguments, `count` in number, and those whose answers have the messages behind them. A message
-- of which no turn is known may have been posted, and its id not be saved yet: its deletion is noted if it `is_recent`.
local function turns_of(is_recent, platform, count, ...)
  local ids = {}
  for at, one in ipairs({...}) do
    local posted = at > tonumber(count) and redis.call('GET', key('posted', platform, one))
    local id = posted and string.match(posted, ' (.*)$')
    if at <= tonumber(count) then
      table.insert(ids, one)
    elseif id and is_of_answer(one, id) then
      -- First, because otherwise they would be answered by themselves.
      for _, joined in ipairs(ids_of(id, 'joined')) do table.insert(ids, joined) end
      table.insert(ids, id)
    elseif not id and is_recent then
      redis.call('SET', key('deleted', platform, one), '1', 'PX', LATE_ADMISSION_MS)
    end
  end
  return ids
end

-- If the newest reply of a thread is `forgotten` (a set), the last one that is remembered is the newest again. Both are
-- written once more: the remembered one with its buttons, the forgotten one, if it is still there, without.
local function note_older_newest(thread, forgotten)
  local name, last = key('newest', thread), last_remembered(thread)
  local newest = redis.call('GET', name)
  if not newest or not forgotten[newest] then return end
  repair_buttons(newest, thread)
  if last == '' or last_message(last) == '' then return end
  redis.call('SET', name, last, 'PX', keep_ms(thread))
  repair_buttons(last, thread)
end

-- A turn that was released in mid-reply is taken once more, to end what is shown.
local function forget_turn(id, may_be_admitted_later)
  local turn, lead = record(id), get(id, 'lead')
  drop_from_contexts(id)
  if not turn.thread then
    if may_be_admitted_later then mark_dropped(id, LATE_ADMISSION_MS) end
    return
  end
  if lead then leave_out(id, lead) end
  if turn.state == 'queued' and not has(id, 'message_ids') then
    separate(id)
    set(id, 'state', 'dropped')
    settle(id, turn, false, use_so_far(id))
    drop_words(id)
    return leave_thread(id, turn)
  end
  redis.call('HSETNX', key('turn', id), 'forget', QUESTION_ONLY)
  unset(id, 'edited_since_take')
  if lead then drop_words(id) end
  -- The exchange has the questions of all.
  forget_exchange(turn.thread, lead or id)
  if not is_open(record(lead or id)) then
    forget_joined(lead or id)
  elseif not lead then
    verbs.stop(id)
    separate(id)
  end
end

-- Forgets these turns, all that continues them, and all their versions with what followed those. The fields that lead
-- there stay, so that a call that comes again finds them.
local function forget_turns(ids, may_be_admitted_later)
  local threads, forgotten, known = {}, {}, {}
  -- ipairs finds those that are added here, too.
  for _, one in ipairs(ids) do
    local answered = get(one, 'lead') or one
    local more = known[answered] and {} or {ids_of(answered, 'continued'), turns_behind(answered)}
    for _, found in ipairs(more) do
      for _, following in ipairs(found) do table.insert(ids, following) end
    end
    known[answered] = true
  end
  for _, id in ipairs(ids) do
    threads[get(id, 'thread') or ''] = true
    forgotten[id], forgotten[get(id, 'lead') or id] = true, true
    forget_turn(id, may_be_admitted_later)
  end
  for thread in pairs(threads) do note_older_newest(thread, forgotten) end
end

-- `asked` is when the last of the turns was asked (ms; '' if that is not known). If that is less than ten
-- minutes ago, its admission may still come.
function verbs.forget(asked, ...)
  local may_be_admitted_later = now_ms() - (tonumber(asked) or now_ms()) < LATE_ADMISSION_MS
  forget_turns(turns_of(may_be_admitted_later, ...), may_be_admitted_later)
end

-- Forgets all that was said in a thread, and stops the answer that grows; questions that wait are answered without what
-- was before them. `event` is the id of a command in a thread whose replies have buttons, else ''. It counts once.
-- Returns how much there was to forget.
function verbs.reset(thread, event)
  if event ~= '' and not redis.call('SET', key('pressed', event), thread, 'NX', 'PX', PRESS_MS) then return 0 end
  local ids, dropped = redis.call('ZRANGE', key('turns', thread), 0, -1), 0
  for _, kind in ipairs({'history', 'aside'}) do
    for _, id in ipairs(redis.call('LRANGE', key(kind, thread), 0, -1)) do table.insert(ids, id) end
  end
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    if has(id, 'message_ids') or record(id).state == 'running' then
      -- In front, joined questions before their lead: otherwise they would be answered by themselves.
      for _, one in ipairs({id, unpack(ids_of(id, 'joined'))}) do table.insert(ids, 1, one) end
    end
    dropped = dropped + redis.call('DEL', key('context', id), key('files', id))
  end
  forget_turns(ids, false)
  for _, id in ipairs(ids) do drop_forgotten_answer(id, event == '' and WITH_ANSWER or AFTER_REPAIR) end
  local names = {key('history', thread), key('names', thread), key('told', thread), key('turns', thread)}
  dropped = dropped + #ids + redis.call('DEL', unpack(names))
  note_seen(thread)
  return dropped
end

-- Forgets turns as `forget` does, with their answers, also of those that end later. For platforms on which no late
-- write has to be corrected from them. Returns the ids of all that went.
function verbs.forget_words(asked, ...)
  local ids = {...}
  forget_turns(ids, now_ms() - (tonumber(asked) or now_ms()) < LATE_ADMISSION_MS)
  for _, id in ipairs(ids) do drop_forgotten_answer(id, WITH_ANSWER) end
  return ids
end
